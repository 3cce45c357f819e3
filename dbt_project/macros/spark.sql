{#-
  Tables on Spark live as long as the session: below HOME, in a folder of this run, so that what a
  killed run left is not in the way.
-#}
{% macro spark__create_schema(relation) -%}
  {%- set home = env_var('NEARLINE_HOME', env_var('PWD', '.') ~ '/../var') -%}
  {%- call statement('create_schema') -%}
    create schema if not exists {{ relation }} location '{{ home }}/spark/{{ invocation_id }}'
  {%- endcall -%}
{%- endmacro %}
