{#
  Tests that look at the rows of the run's window only, so that their cost does not grow with
  history. Each returns the rows that break the rule.
#}

{% test unique_in_window(model, columns) %}
  select {{ columns | join(', ') }}, count(*) as copies
  from {{ rows_in_window(model) }}
  group by {{ columns | join(', ') }}
  having count(*) > 1
{% endtest %}


{% test holds_in_window(model, condition) %}
  select * from {{ rows_in_window(model) }}
  where not coalesce({{ condition }}, false)
{% endtest %}


{#- Each `key` is a key of `parent`, at least in rows where `only` holds. -#}
{% test known_in_window(model, key, parent, only='true') %}
  select child.{{ key }}
  from {{ rows_in_window(model) }} as child
  anti join {{ parent }} as parent on child.{{ key }} = parent.{{ key }}
  where {{ only }}
{% endtest %}


{#- The rows with events are those of the partials, with as many events: nothing lost or twice. -#}
{% test matches_partials(model, partials, key) %}
  with expected as (
    select {{ key }}, hour + interval 1 hour as feature_ts, sum(events) as events
    from {{ partials }}
    where {{ days_in_reach(0) }} and {{ in_window('hour') }}
    group by {{ key }}, hour
  ),

  found as (
    select {{ key }}, feature_ts, events_1h as events
    from {{ rows_in_window(model) }}
    where events_1h > 0
  )

  (select * from expected except all select * from found)
  union all
  (select * from found except all select * from expected)
{% endtest %}


{#- A session holds each event of its days exactly once. -#}
{% test holds_every_event(model, events) %}
  with expected as (
    select user_id, count(*) as events from {{ events }}
    where
      dt between cast({{ first_day() }} as date) and cast({{ last_day() }} as date)
      and {{ in_window('event_ts', days=true) }}
    group by user_id
  ),

  found as (
    select user_id, sum(events) as events from {{ rows_in_window(model) }} group by user_id
  )

  (select * from expected except all select * from found)
  union all
  (select * from found except all select * from expected)
{% endtest %}
