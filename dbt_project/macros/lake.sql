{#
  The lake as DuckDB sees it. `source()` gives dbt the lineage; the path, the partition types and
  the schema of a dataset that has no file yet all come from models/staging/_sources.yml.
#}

{% macro lake_root() -%}
  {{- env_var('NEARLINE_LAKE', env_var('NEARLINE_HOME', '../var') ~ '/lake') -}}
{%- endmacro %}


{% macro lake_files(node) -%}
  {{- lake_root() ~ '/' ~ node.meta.dataset ~ ('/*/*' if node.meta.hourly else '') ~ '/data.parquet' -}}
{%- endmacro %}


{#-
  All rows of one dataset, for a from clause. No `union_by_name`: it opens every file of the lake
  before it prunes; every partition of a dataset has the same schema.
-#}
{% macro lake(name) -%}
  {%- set relation = source('lake', name) -%}
  {%- if execute -%}
    {%- set node = lake_node(name) -%}
    {%- set files = lake_files(node) -%}
    {%- set found = run_query("select count(*) from glob('" ~ files ~ "')").columns[0].values()[0] -%}
    {%- if found and node.meta.hourly -%}
      read_parquet('{{ files }}', hive_partitioning = true, hive_types = {'dt': date, 'hr': integer})
    {%- elif found -%}
      read_parquet('{{ files }}', hive_partitioning = false)
    {%- else -%}
      (select {% for column in node.columns.values() -%}
        cast(null as {{ column.data_type }}) as {{ column.name }},
      {%- endfor %} where false)
    {%- endif -%}
  {%- else -%}
    {{ relation }}
  {%- endif -%}
{%- endmacro %}


{% macro lake_node(name) -%}
  {%- for node in graph.sources.values() if node.source_name == 'lake' and node.name == name -%}
    {{ return(node) }}
  {%- endfor -%}
{%- endmacro %}


{#- The start of the hour that a partition holds. -#}
{% macro partition_hour() -%}
  cast(dt as timestamp) + to_hours(hr)
{%- endmacro %}
