{#- So many hours after a list was shown an event may still follow from it. -#}
{% macro attribution_hours() -%}
  {{ return(24) }}
{%- endmacro %}
