{#-
  What is left, at each of a user's `marks`, of what the user did of each `kind` in 30 days, halved
  every 7 days: rows of user_id, kind, hour and millionths, for kinds with any in these days.
  `known` has user_id, kind, hour and `units` (decay_units); its `counts` are summed over 24 hours
  and 30 days, of its columns `newest` the greatest is kept. As in rolled_by_type, history stands
  beside a row of zeros for each hour asked for.
-#}
{% macro scored_at_marks(known, kind, counts=[], newest=[]) -%}
select
        user_id,
        {{ kind }},
        hour,
        {% for column in counts -%}
        {{ column }}_24h,
        {{ column }}_30d,
        {% endfor -%}
        {% for column in newest -%}
        {{ column }},
        {% endfor -%}
        {{ decayed('units', 168) }} as millionths

    from (
        select
            user_id,
            {{ kind }},
            hour,
            asked,
            {% for column in counts -%}
            {{ rolling_sums(column, [24, 720]) }},
            {% endfor -%}
            {% for column in newest -%}
            max({{ column }}) over last_30d as {{ column }},
            {% endfor -%}
            {{ decay_sums('units', 168) }}

        from (
            select *, false as asked from {{ known }}
            union all
            select
                kinds.user_id,
                kinds.{{ kind }},
                marks.hour,
                {% for column in counts -%}
                0 as {{ column }},
                {% endfor -%}
                {% for column in newest -%}
                null as {{ column }},
                {% endfor -%}
                0 as units,
                true as asked

            from marks
            inner join (select distinct user_id, {{ kind }} from {{ known }}) as kinds
                on marks.user_id = kinds.user_id
        ) as with_asked
        {{ rolling_windows('user_id, ' ~ kind, [24, 720]) }}
    ) as rolled
    where asked and units_0 + units_1 > 0
{%- endmacro %}
