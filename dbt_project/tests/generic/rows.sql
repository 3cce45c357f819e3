{#
  Tests of rows by themselves. A model holds the rows of the window only: their cost does not grow.
#}

{% test unique_rows(model, columns) %}
  select {{ columns | join(', ') }}, count(*) as copies
  from {{ model }}
  group by {{ columns | join(', ') }}
  having count(*) > 1
{% endtest %}


{#- `rules` are conditions by name; the first that a row breaks is told with it. -#}
{% test holds(model, rules) %}
  with judged as (
    select
      case
        {% for name, condition in rules.items() -%}
        when not coalesce({{ condition }}, false) then '{{ name }}'
        {% endfor -%}
      end as broken_rule,
      *
    from {{ model }}
  )

  select * from judged
  where broken_rule is not null
{% endtest %}


{#-
  `ids` are distinct and as many as their `scores`, `at_most` of them, and the scores go down from
  `high` at the most, to above 0.
-#}
{% test is_ranking(model, ids, scores, at_most, high='1e300') %}
  select * from {{ model }}
  where
    {{ list_length(ids) }} <> {{ list_length(scores) }}
    or {{ list_length(ids) }} > {{ at_most }}
    or {{ list_length('array_distinct(' ~ ids ~ ')') }} <> {{ list_length(ids) }}
    or {{ sorted_down(scores) }} <> {{ scores }}
    or {{ list_least(scores) }} < 0
    or {{ list_greatest(scores) }} > {{ high }}
{% endtest %}


{#-
  Each of the lists `columns` has one value for each event type of the domain where `only` holds, or
  `less` fewer.
-#}
{% test has_each_type(model, columns, only='true', less=0) %}
  with types as (
    select greatest(0, count(*) - {{ less }}) as types
    from {{ ref('stg_event_types') }}
    where {{ only }}
  )

  select rows_of.*
  from {{ model }} as rows_of
  cross join types
  where
    {% for column in columns -%}
    {{ list_length('rows_of.' ~ column) }} <> types.types
    {{- ' or ' if not loop.last }}
    {%- endfor %}
{% endtest %}


{#- Every number in the lists `columns` lies between `low` and `high`. -#}
{% test lists_in_range(model, columns, low=0, high='1e300') %}
  select * from {{ model }}
  where
    {% for column in columns -%}
    {{ list_least(column) }} < {{ low }} or {{ list_greatest(column) }} > {{ high }}
    {{- ' or ' if not loop.last }}
    {%- endfor %}
{% endtest %}


{% test has_length(model, column, length) %}
  select * from {{ model }} where {{ list_length(column) }} <> {{ length }}
{% endtest %}
