with hours as (

    select * from {{ ref('stg_user_query_hourly') }}

),

marks as (

    {{ marks('hours', 'user_id', [24, 720]) }}

),

known as (

    select
        hours.user_id,
        hours.query,
        hours.hour,
        hours.events,
        hours.last_event_us,
        {{ decay_units('hours.events', 168) }} as units

    from hours
    semi join marks on hours.user_id = marks.user_id

),

scored as (

    {{ scored_at_marks('known', 'query', counts=['events'], newest=['last_event_us']) }}

),

ranked as (

    select
        *,
        row_number() over (partition by user_id, hour order by millionths desc, query asc)
            as position,
        row_number() over (partition by user_id, hour order by last_event_us desc, query asc)
            as recency

    from scored

),

by_hour as (

    select
        user_id,
        hour,
        {{ ordered_list('query', 'position', only='position <= 20') }} as queries,
        {{ ordered_list('millionths / 1e6', 'position', only='position <= 20') }} as scores,
        max(case when recency = 1 then query end) as last_query,
        cast(sum(events_24h) as bigint) as searches_24h,
        cast(sum(events_30d) as bigint) as searches_30d

    from ranked
    group by user_id, hour

)

select
    marks.user_id,
    {{ end_of('marks.hour') }} as feature_ts,
    coalesce(by_hour.queries, {{ list_of([]) }}) as queries,
    coalesce(by_hour.scores, {{ list_of([]) }}) as scores,
    by_hour.last_query,
    coalesce(by_hour.searches_24h, 0) as searches_24h,
    coalesce(by_hour.searches_30d, 0) as searches_30d

from marks
left join by_hour
    on
        marks.user_id = by_hour.user_id
        and marks.hour = by_hour.hour
