with partials as (

    select * from {{ ref('stg_user_hourly') }}
    where
        {{ days_in_reach(720) }}
        and {{ in_reach('hour', 720) }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

summed as (

    select
        partials.user_id,
        partials.hour,
        cast(sum(partials.events) as bigint) as events,
        cast(sum(if(event_types.positive, partials.events, 0)) as bigint) as positive_events,
        cast(sum(partials.items) as bigint) as item_touches,
        coalesce(sum(partials.events * event_types.weight), 0) as weight,
        max(partials.last_event_ts) as last_event_ts

    from partials
    left join event_types on partials.event_type = event_types.event_type
    group by partials.user_id, partials.hour

)

select * from summed
