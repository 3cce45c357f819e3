{#
  What DuckDB and Spark say differently. Everything else in the project is SQL that both read.
#}

{#-
  A query whose rows are the files that match patterns of folders below a dataset. Spark fails where
  nothing matches: the domain's file, which is always there, matches.
-#}
{% macro lake_listing(dataset, patterns) -%}
  {%- set paths = lake_paths(dataset, patterns) -%}
  {%- if target.type == 'spark' -%}
    select path from binaryFile.`{{ lake_root() }}/{domain/data.parquet,{{ paths | join(',') }}}`
  {%- else -%}
    select file from glob([{{ quoted_paths(paths) }}])
  {%- endif -%}
{%- endmacro %}


{#- The rows of the data files in folders below a dataset. -#}
{% macro lake_scan(dataset, folders) -%}
  {%- set paths = lake_paths(dataset, folders) -%}
  {%- if target.type == 'spark' -%}
    parquet.`{{ lake_root() }}/{ {{- paths | join(',') -}} }`
  {%- else -%}
    read_parquet([{{ quoted_paths(paths) }}], hive_partitioning = false)
  {%- endif -%}
{%- endmacro %}

{% macro quoted_paths(paths) -%}
  {%- for path in paths -%}
    '{{ lake_root() }}/{{ path }}'{{ ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}


{#- A literal that compares with the times in the lake. -#}
{% macro utc_time(text) -%}
  cast('{{ text }}+00:00' as {{ 'timestamp' if target.type == 'spark' else 'timestamptz' }})
{%- endmacro %}


{#- Microseconds since 1970 of a time. -#}
{% macro epoch_us(time) -%}
  {{ 'unix_micros' if target.type == 'spark' else 'epoch_us' }}({{ time }})
{%- endmacro %}


{#- The time, in UTC, of microseconds since 1970. -#}
{% macro time_of_us(microseconds) -%}
  {{ 'timestamp_micros' if target.type == 'spark' else 'make_timestamp' }}({{ microseconds }})
{%- endmacro %}


{#- The whole part of the quotient of two whole numbers. -#}
{% macro whole_part(number, divisor) -%}
  ({{ number }} {{ 'div' if target.type == 'spark' else '//' }} {{ divisor }})
{%- endmacro %}


{#- The values of a group where `only` holds, in the order of another column; [] without any. -#}
{% macro ordered_list(value, order, only='true') -%}
  {%- if target.type == 'spark' -%}
    transform(
      array_sort(
        collect_list(struct({{ order }} as place, {{ value }} as value)) filter (where {{ only }})
      ),
      each -> each.value
    )
  {%- else -%}
    coalesce(list({{ value }} order by {{ order }}) filter (where {{ only }}), [])
  {%- endif -%}
{%- endmacro %}


{#- A list of one value after the other. -#}
{% macro list_of(values) -%}
  {{ 'array' if target.type == 'spark' else 'list_value' }}({{ values | join(', ') }})
{%- endmacro %}


{% macro list_length(list) -%}
  {{ 'size' if target.type == 'spark' else 'len' }}({{ list }})
{%- endmacro %}


{#- The least number in a list; null of an empty one. -#}
{% macro list_least(list) -%}
  {{ 'array_min' if target.type == 'spark' else 'list_min' }}({{ list }})
{%- endmacro %}


{#- The greatest number in a list; null of an empty one. -#}
{% macro list_greatest(list) -%}
  {{ 'array_max' if target.type == 'spark' else 'list_max' }}({{ list }})
{%- endmacro %}


{#- A list from its greatest value to its least. -#}
{% macro sorted_down(list) -%}
  {%- if target.type == 'spark' -%} sort_array({{ list }}, false)
  {%- else -%} list_reverse_sort({{ list }})
  {%- endif -%}
{%- endmacro %}


{#- The value at a place of a list, counted from 1; null of a null list. -#}
{% macro list_at(list, place) -%}
  {%- if target.type == 'spark' -%} element_at({{ list }}, cast({{ place }} as int))
  {%- else -%} list_extract({{ list }}, {{ place }})
  {%- endif -%}
{%- endmacro %}


{#- In a select list: one row for each place of a list that has any, counted from 1. -#}
{% macro places_of(list) -%}
  {%- if target.type == 'spark' -%} explode(sequence(1L, cast(size({{ list }}) as bigint)))
  {%- else -%} unnest(range(1, len({{ list }}) + 1))
  {%- endif -%}
{%- endmacro %}
