{#- The windows of the counting features, in hours. -#}
{% macro feature_windows() -%}
  {{ return([1, 24, 168, 720]) }}
{%- endmacro %}


{#- 1h, 24h, 7d, 30d -#}
{% macro window_name(hours) -%}
  {{ return(hours ~ 'h' if hours <= 24 else (hours // 24) ~ 'd') }}
{%- endmacro %}


{#-
  One row per hour in which a key was active or one of its windows expires, so that the newest
  stored row of a key always holds: counts change only at such hours. `sums` are additive columns
  of `relation`; an expiry adds zeros.
-#}
{% macro active_and_expiring_hours(relation, key, sums, newest=[]) -%}
select
        {{ key }},
        hour,
        {% for column in sums %}{{ column }},
        {% endfor %}
        {%- for column in newest %}{{ column }},
        {% endfor -%}
        1 as active_hours
    from {{ relation }}
    union all
    select
        {{ key }},
        hour + to_hours(expires.after_hours) as hour,
        {% for column in sums %}0 as {{ column }},
        {% endfor %}
        {%- for column in newest %}null as {{ column }},
        {% endfor -%}
        0 as active_hours
    from {{ relation }}
    cross join (
        values {% for hours in feature_windows() %}({{ hours }}){{ ', ' if not loop.last }}{% endfor %}
    ) as expires (after_hours)
    where {{ in_window('hour + to_hours(expires.after_hours)') }}
{%- endmacro %}


{#- The sums of `column` over every feature window, the row's own hour included. -#}
{% macro rolling_sums(column) -%}
  {%- for hours in feature_windows() %}
  cast(sum({{ column }}) over last_{{ window_name(hours) }} as bigint)
    as {{ column }}_{{ window_name(hours) }},
  {%- endfor %}
{%- endmacro %}


{#- The named windows that `rolling_sums` refers to. -#}
{% macro rolling_windows(key) -%}
  window
  {%- for hours in feature_windows() %}
  last_{{ window_name(hours) }} as (
    partition by {{ key }} order by hour
    range between interval {{ hours - 1 }} hour preceding and current row
  ){{ ',' if not loop.last }}
  {%- endfor %}
{%- endmacro %}


{#-
  A weight after exponential decay, in whole millionths: integers add up to the same total in any
  order, so that one hour alone and the same hour within a bulk run give the same bytes.
-#}
{% macro decayed_millionths(weight, age_hours, half_life_hours) -%}
  cast(round({{ weight }} * pow(0.5, {{ age_hours }} / {{ half_life_hours }}.0) * 1000000) as bigint)
{%- endmacro %}
