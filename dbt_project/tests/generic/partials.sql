{#
  Tests of the window's rows against the partials that they were made of. Each returns the rows that
  break the rule.
#}

{#- An event type that the domain does not name would count with no weight. -#}
{% test event_types_are_known(model, partials) %}
  select partials.event_type, count(*) as broken_rows
  from {{ lake(partials) }} as partials
  anti join {{ ref('stg_event_types') }} as event_types
    on partials.event_type = event_types.event_type
  group by partials.event_type
{% endtest %}


{#-
  Each key and hour of the partials has a row; and where `events` names the column that counts the
  hour's events, rows with events are those of the partials, with as many: nothing lost or twice.
-#}
{% test matches_partials(model, partials, key, events=none) %}
  with expected as (
    select {{ key }}, {{ end_of(hour_of('hour')) }} as feature_ts, cast(sum(events) as bigint) as events
    from {{ lake(partials) }}
    group by {{ key }}, hour
  ),

  found as (
    select {{ key }}, feature_ts, {{ events or 'cast(null as bigint)' }} as events
    from {{ model }}
  )

  select
    expected.{{ key }},
    expected.feature_ts,
    expected.events as events_in_partials,
    found.events as events_found
  from expected
  left join found
    on expected.{{ key }} = found.{{ key }} and expected.feature_ts = found.feature_ts
  where found.{{ key }} is null or found.events <> expected.events
  {% if events -%}
  union all
  select found.{{ key }}, found.feature_ts, 0 as events_in_partials, found.events as events_found
  from found
  anti join expected
    on found.{{ key }} = expected.{{ key }} and found.feature_ts = expected.feature_ts
  where found.events > 0
  {% endif -%}
{% endtest %}


{#- The newest row is that of the newest hour with partials, and no row lies outside the window. -#}
{% test is_fresh(model, partials) %}
  with newest as (
    select max({{ end_of(hour_of('hour')) }}) as feature_ts from {{ lake(partials) }}
  ),

  found as (
    select min(feature_ts) as oldest_found, max(feature_ts) as newest_found from {{ model }}
  )

  select found.oldest_found, found.newest_found, newest.feature_ts as newest_in_partials
  from found
  cross join newest
  where
    coalesce(found.newest_found < newest.feature_ts, newest.feature_ts is not null)
    or found.oldest_found <= {{ time_of_us(window_start() * 3600000000) }}
    or found.newest_found > {{ time_of_us(window_end() * 3600000000) }}
{% endtest %}


{#- A session holds each event of its days exactly once. -#}
{% test holds_every_event(model, events) %}
  with expected as (
    select user_id, count(*) as events
    from {{ events }}
    where {{ in_days(whole_part('event_us', 86400000000)) }}
    group by user_id
  ),

  found as (
    select user_id, cast(sum(events) as bigint) as events from {{ model }} group by user_id
  )

  select
    coalesce(expected.user_id, found.user_id) as user_id,
    expected.events as events_in_lake,
    found.events as events_found
  from expected
  full outer join found on expected.user_id = found.user_id
  where expected.events is distinct from found.events
{% endtest %}
