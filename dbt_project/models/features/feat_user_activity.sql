{{ config(meta={'window': {'column': 'feature_ts', 'ends': true}}) }}

{%- set sums = ['events', 'positive_events', 'item_touches'] %}

with hours as (

    select * from {{ ref('int_user_hours') }}

),

marked as (

    {{ active_and_expiring_hours('hours', 'user_id', sums, newest=['last_event_ts']) }}

),

merged as (

    select
        user_id,
        hour,
        {% for column in sums + ['active_hours'] -%}
        sum({{ column }}) as {{ column }},
        {% endfor -%}
        max(last_event_ts) as last_event_ts

    from marked
    group by user_id, hour

),

rolled as (

    select
        user_id,
        hour,
        {% for column in sums + ['active_hours'] -%}
        {{ rolling_sums(column) }}
        {% endfor -%}
        max(last_event_ts) over last_30d as last_event_ts

    from merged
    {{ rolling_windows('user_id') }}

),

in_window as (

    select * from rolled
    where {{ in_window('hour') }}

),

decayed as (

    select
        in_window.user_id,
        in_window.hour,
        sum({{ decayed_millionths(
            'hours.weight', "date_diff('hour', hours.hour, in_window.hour)", 24
        ) }}) as millionths

    from in_window
    inner join hours
        on
            in_window.user_id = hours.user_id
            and in_window.hour >= hours.hour
            and in_window.hour - interval 720 hour < hours.hour
    group by in_window.user_id, in_window.hour

)

select
    in_window.user_id,
    in_window.hour + interval 1 hour as feature_ts,
    {% for column in sums + ['active_hours'] -%}
    {% for hours in feature_windows() -%}
    in_window.{{ column }}_{{ window_name(hours) }},
    {% endfor -%}
    {% endfor -%}
    cast(coalesce(decayed.millionths, 0) as double) / 1000000 as decayed_weight,
    date_diff('second', in_window.last_event_ts, in_window.hour + interval 1 hour)
        as recency_seconds,
    in_window.last_event_ts

from in_window
left join decayed
    on
        in_window.user_id = decayed.user_id
        and in_window.hour = decayed.hour
