{#
  The window [window_start, window_end) of a run, as naive UTC timestamps, and the strategy that
  replaces exactly its rows. Nothing here is read at parse time, so one parse serves every window.
#}

{% macro window_start() -%}
  {%- set given = window_setting('window_start') -%}
  {%- if given -%} {{ utc_literal(given) }}
  {%- else -%} ({{ window_end() }} - interval 1 hour)
  {%- endif -%}
{%- endmacro %}


{% macro window_end() -%}
  {{ utc_literal(window_setting('window_end') or newest_hour_end()) }}
{%- endmacro %}


{#-
  The dbt variable, or else the environment's NEARLINE_WINDOW_START or _END, which pipeline/marts.py
  sets: variables given to dbt that differ from the last run's make it parse the whole project again.
-#}
{% macro window_setting(name) -%}
  {%- if execute -%}
    {{ return(var(name) or env_var('NEARLINE_' ~ name | upper, '')) }}
  {%- endif -%}
  {{ return(var(name)) }}
{%- endmacro %}


{% macro utc_literal(text) -%}
  (timestamptz '{{ text }}' at time zone 'UTC')
{%- endmacro %}


{#- The end of the newest hour with user activity; an empty lake gives an hour that holds nothing. -#}
{% macro newest_hour_end() -%}
  {%- if execute -%}
    {%- set query -%}
      select max(
        cast(regexp_extract(file, 'dt=([0-9-]+)', 1) as timestamp)
        + to_hours(cast(regexp_extract(file, 'hr=([0-9]+)', 1) as integer) + 1)
      )
      from glob('{{ lake_files(lake_node('user_hourly')) }}')
    {%- endset -%}
    {%- set newest = run_query(query).columns[0].values()[0] -%}
    {%- if newest -%}
      {{ return(newest.isoformat() ~ 'Z') }}
    {%- endif -%}
  {%- endif -%}
  {{ return('1970-01-01T01:00:00Z') }}
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


{#- The rows of a model that the run's window covers; all, if its config names no window. -#}
{% macro rows_in_window(model) -%}
  {%- set name = model.identifier if model.identifier is defined else model | string -%}
  {%- set window = none -%}
  {%- if execute -%}
    {%- set nodes = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
        | selectattr('name', 'equalto', name) | list -%}
    {%- set window = nodes[0].config.meta.get('window') -%}
  {%- endif -%}
  (
    select * from {{ model }}
    {%- if window %}
    where {{ in_window(window.column, ends=window.get('ends', false), days=window.get('days', false)) }}
    {%- endif %}
  )
{%- endmacro %}
