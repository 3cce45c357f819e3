{#
  The window [window_start, window_end) of a run, as naive UTC timestamps, and the strategy that
  replaces exactly its rows. Nothing here is read at parse time, so one parse serves every window.
#}

{% macro window_start() -%}
  {%- if var('window_start') -%} {{ utc_literal(var('window_start')) }}
  {%- else -%} ({{ window_end() }} - interval 1 hour)
  {%- endif -%}
{%- endmacro %}


{% macro window_end() -%}
  {%- if var('window_end') -%} {{ utc_literal(var('window_end')) }}
  {%- else -%} {{ utc_literal(newest_hour_end()) }}
  {%- endif -%}
{%- endmacro %}


{% macro utc_literal(text) -%}
  {%- set ts = modules.datetime.datetime.fromisoformat(text | string) -%}
  {%- if ts.tzinfo -%}
    {%- set ts = ts.astimezone(modules.pytz.utc).replace(tzinfo=none) -%}
  {%- endif -%}
  timestamp '{{ ts.strftime("%Y-%m-%d %H:%M:%S") }}'
{%- endmacro %}


{#- The end of the newest hour with user activity; an empty lake gives an hour that holds nothing. -#}
{% macro newest_hour_end() -%}
  {%- if execute -%}
    {%- set files = lake_files(lake_node('user_hourly')) -%}
    {%- set query -%}
      select max(regexp_extract(file, 'dt=([0-9-]+)', 1) || 'T' || regexp_extract(file, 'hr=([0-9]+)', 1))
      from glob('{{ files }}')
    {%- endset -%}
    {%- set newest = run_query(query).columns[0].values()[0] or '1970-01-01T00' -%}
    {%- set end = modules.datetime.datetime.fromisoformat(newest) + modules.datetime.timedelta(hours=1) -%}
    {{ return(end.isoformat()) }}
  {%- endif -%}
  {{ return('1970-01-01T01:00:00') }}
{%- endmacro %}


{#-
  Whether a row belongs to the run's window. `column` holds the start of the row's hour; with
  `ends=true` its end, as feature_ts does; with `days=true` the window is widened to whole days.
-#}
{% macro in_window(column, ends=false, days=false) -%}
  {%- if ends -%}
    ({{ column }} > {{ window_start() }} and {{ column }} <= {{ window_end() }})
  {%- elif days -%}
    ({{ column }} >= {{ first_day() }} and {{ column }} < {{ last_day() }})
  {%- else -%}
    ({{ column }} >= {{ window_start() }} and {{ column }} < {{ window_end() }})
  {%- endif -%}
{%- endmacro %}


{% macro first_day() -%}
  date_trunc('day', {{ window_start() }})
{%- endmacro %}


{% macro last_day() -%}
  (date_trunc('day', {{ window_end() }} - interval 1 microsecond) + interval 1 day)
{%- endmacro %}


{#- Hours that can still be felt in the window: the window and `lookback_hours` before it. -#}
{% macro in_reach(column, lookback_hours) -%}
  (
    {{ column }} >= {{ window_start() }} - interval {{ lookback_hours }} hour
    and {{ column }} < {{ window_end() }}
  )
{%- endmacro %}


{#- The same for the partition date, which prunes files before they are opened. -#}
{% macro days_in_reach(lookback_hours) -%}
  dt between cast({{ window_start() }} - interval {{ lookback_hours }} hour as date)
  and cast({{ last_day() }} as date)
{%- endmacro %}


{#- dbt runs this in one transaction: a reader sees the old rows of the window or the new ones. -#}
{% macro get_incremental_window_sql(arguments) -%}
  {%- set target = arguments.target_relation -%}
  {%- set columns = arguments.dest_columns | map(attribute='quoted') | join(', ') -%}
  {%- set window = config.get('meta').window -%}
  delete from {{ target }}
  where {{ in_window(window.column, ends=window.get('ends', false), days=window.get('days', false)) }};
  insert into {{ target }} ({{ columns }})
  select {{ columns }} from {{ arguments.temp_relation }}
{%- endmacro %}
