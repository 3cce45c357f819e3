{#
  The lake as SQL sees it. `source()` gives dbt the lineage; the path, the column that tells the
  hour and the schema of a dataset that has no file yet all come from models/staging/_sources.yml.
#}

{% macro lake_root() -%}
  {{- return(env_var('NEARLINE_LAKE', env_var('NEARLINE_HOME', '../var') ~ '/lake')) -}}
{%- endmacro %}


{#-
  The rows of a dataset, for a from clause: of an hourly one those of the window and of the
  `lookback_hours` before it, with `whole_days` up to the ends of its days. Only the days in reach
  are listed, and their files opened.
-#}
{% macro lake(name, lookback_hours=0, whole_days=false) -%}
  {%- set relation = source('lake', name) -%}
  {%- if not execute -%} {{ return(relation) }} {%- endif -%}
  {%- set node = lake_node(name) -%}
  {%- set first, end = window_start() - lookback_hours, window_end() -%}
  {%- if whole_days -%}
    {%- set first, end = first // 24 * 24, (end + 23) // 24 * 24 -%}
  {%- endif -%}
  {%- set dataset, hour = node.meta.dataset, node.meta.hour -%}
  {%- set folders = lake_days(dataset, first, end) if hour else lake_folders(dataset, ['']) -%}
  {%- if folders -%}
    (
      select * from {{ lake_scan(dataset, folders) }}
      {% if hour -%}
      where {{ hour }} >= {{ utc_time(hour_text(first)) }} and {{ hour }} < {{ utc_time(hour_text(end)) }}
      {%- endif %}
    )
  {%- else -%}
    (select {% for column in node.columns.values() -%}
      cast(null as {{ column.data_type }}) as {{ column.name }}{{ ', ' if not loop.last }}
    {%- endfor %} where false)
  {%- endif -%}
{%- endmacro %}


{% macro lake_node(name) -%}
  {%- for node in graph.sources.values() if node.source_name == 'lake' and node.name == name -%}
    {{ return(node) }}
  {%- endfor -%}
{%- endmacro %}


{#-
  The folders of an hourly dataset that hold hours of `[first, end)`. A day that has a file of its
  own is read from it alone: what lies beside it is about to be removed (nearline/lake.py).
-#}
{% macro lake_days(dataset, first, end) -%}
  {%- set patterns = [] -%}
  {%- for day in range(first // 24, (end + 23) // 24) -%}
    {%- set folder = 'dt=' ~ hour_text(day * 24)[:10] -%}
    {%- do patterns.extend([folder, folder ~ '/hr=*']) -%}
  {%- endfor -%}
  {%- set found = lake_folders(dataset, patterns) -%}
  {%- set held = [] -%}
  {%- for folder in found -%}
    {%- set day = folder.split('/')[0] -%}
    {%- set pattern = day if day in found else day ~ '/hr=*' -%}
    {%- do held.append(pattern) if pattern not in held -%}
  {%- endfor -%}
  {{ return(held) }}
{%- endmacro %}


{#- The folders below a dataset that match one of the patterns and hold a data file. -#}
{% macro lake_folders(dataset, patterns) -%}
  {%- set folders = [] -%}
  {%- for path in run_query(lake_listing(dataset, patterns)).columns[0].values() -%}
    {%- set parts = path.rsplit('/' ~ dataset ~ '/', 1) -%}
    {%- do folders.append(parts[1].rpartition('/')[0]) if parts | length == 2 -%}
  {%- endfor -%}
  {{ return(folders | unique | list) }}
{%- endmacro %}


{#- Where the data files of folders below a dataset lie; '' is the dataset itself. -#}
{% macro lake_paths(dataset, folders) -%}
  {%- set paths = [] -%}
  {%- for folder in folders -%}
    {%- do paths.append(dataset ~ ('/' ~ folder if folder else '') ~ '/data.parquet') -%}
  {%- endfor -%}
  {{ return(paths) }}
{%- endmacro %}
