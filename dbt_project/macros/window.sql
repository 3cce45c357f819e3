{#
  The window [window_start, window_end) of a run. Times travel through the SQL as whole numbers:
  hours since 1970, and microseconds since 1970 within them. Arithmetic on them is exact and reads
  the same in every dialect. Nothing here is read at parse time, so one parse serves every window.
#}

{% macro window_start() -%}
  {%- set given = window_setting('window_start') -%}
  {{ return(epoch_hour(given) if given else window_end() - 1) }}
{%- endmacro %}


{% macro window_end() -%}
  {%- set given = window_setting('window_end') -%}
  {{ return(epoch_hour(given) if given else newest_hour() + 1) }}
{%- endmacro %}


{#-
  The dbt variable, or else the environment's NEARLINE_WINDOW_START or _END, which pipeline/dbt.py
  sets: variables given to dbt that differ from the last run's make it parse the whole project again.
-#}
{% macro window_setting(name) -%}
  {%- if execute -%}
    {{ return(var(name) or env_var('NEARLINE_' ~ name | upper, '')) }}
  {%- endif -%}
  {{ return('') }}
{%- endmacro %}


{#- An ISO 8601 time, UTC, as hours since 1970. -#}
{% macro epoch_hour(text) -%}
  {%- set time = modules.datetime.datetime.fromisoformat(text.replace('Z', '+00:00')) -%}
  {{ return((time.timestamp() // 3600) | int) }}
{%- endmacro %}


{#- An hour since 1970 as the text of a time in UTC. -#}
{% macro hour_text(hour) -%}
  {%- if execute -%}
    {%- set datetime = modules.datetime -%}
    {{ return((datetime.datetime(1970, 1, 1) + datetime.timedelta(hours=hour)).isoformat(' ')) }}
  {%- endif -%}
  {{ return('1970-01-01 00:00:00') }}
{%- endmacro %}


{#- The newest hour with user activity; an empty lake gives an hour that holds nothing. -#}
{% macro newest_hour() -%}
  {%- if execute -%}
    {%- set dataset = lake_node('user_hourly').meta.dataset -%}
    {%- set found = lake_folders(dataset, ['dt=*', 'dt=*/hr=*']) | sort -%}
    {%- if found -%}
      {%- set day, hr = found[-1][3:13], found[-1][17:] -%}
      {{ return(epoch_hour(day ~ 'T' ~ (hr or '23') ~ ':00+00:00')) }}
    {%- endif -%}
  {%- endif -%}
  {{ return(0) }}
{%- endmacro %}


{#- Whether an hour belongs to the run's window. -#}
{% macro in_window(hour='hour') -%}
  ({{ hour }} >= {{ window_start() }} and {{ hour }} < {{ window_end() }})
{%- endmacro %}


{#- Whether a day (days since 1970) is touched by the window. -#}
{% macro in_days(day) -%}
  ({{ day }} >= {{ window_start() // 24 }} and {{ day }} < {{ (window_end() + 23) // 24 }})
{%- endmacro %}
