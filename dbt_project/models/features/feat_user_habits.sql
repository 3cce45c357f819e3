{%- set windows = [24, 168, 720] %}
{%- set session_break_us = 1800000000 %}
{%- set shares = [] %}
{%- for hour_of_day in range(24) %}
{%- do shares.append('events_at_' ~ hour_of_day ~ ' / greatest(events_30d, 1)') %}
{%- endfor %}

with hours as (

    select * from {{ ref('stg_user_session_hourly') }}

),

marks as (

    {{ marks('hours', 'user_id', windows) }}

),

known as (

    select
        hours.*,
        hours.first_event_us - lag(hours.last_event_us) over (
            partition by hours.user_id order by hours.hour
        ) as gap_us

    from hours
    semi join marks on hours.user_id = marks.user_id

),

with_asked as (

    select
        user_id,
        hour,
        false as asked,
        events,
        breaks + case when gap_us <= {{ session_break_us }} then 0 else 1 end as sessions,
        active_us + case when gap_us <= {{ session_break_us }} then gap_us else 0 end as active_us

    from known
    union all
    select
        user_id,
        hour,
        true as asked,
        0 as events,
        0 as sessions,
        0 as active_us

    from marks

),

rolled as (

    select
        user_id,
        hour,
        asked,
        {{ rolling_sums('sessions', windows) }},
        cast(sum(events) over last_30d as bigint) as events_30d,
        cast(sum(active_us) over last_30d as bigint) as active_us_30d,
        {% for hour_of_day in range(24) -%}
        sum(case when hour % 24 = {{ hour_of_day }} then events else 0 end) over last_30d
            as events_at_{{ hour_of_day }},
        {% endfor -%}
        -- 1970 began on a Thursday.
        sum(case when ({{ whole_part('hour', 24) }} + 3) % 7 >= 5 then events else 0 end)
            over last_30d as weekend_events

    from with_asked
    {{ rolling_windows('user_id', windows) }}

)

select
    user_id,
    {{ end_of('hour') }} as feature_ts,
    sessions_24h,
    sessions_7d,
    sessions_30d,
    events_30d / greatest(sessions_30d, 1) as session_events_30d,
    active_us_30d / 1e6 / greatest(sessions_30d, 1) as session_seconds_30d,
    {{ list_of(shares) }} as hours_of_day,
    weekend_events / greatest(events_30d, 1) as weekend_share

from rolled
where asked
