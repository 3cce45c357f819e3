with partials as (

    select * from {{ ref('stg_item_hourly') }}
    where
        {{ days_in_reach(720) }}
        and {{ in_reach('hour', 720) }}

),

event_types as (

    select
        event_type,
        weight,
        value_min,
        if(value_required and value_max > value_min, value_max - value_min, null) as value_range

    from {{ ref('stg_event_types') }}

),

valued as (

    select
        partials.item_id,
        partials.hour,
        partials.events,
        partials.users,
        partials.events * coalesce(event_types.weight, 0) as weight,
        if(event_types.value_range is not null, partials.events, 0) as valued_events,
        if(
            event_types.value_range is not null,
            cast(round(
                (partials.value_sum - partials.events * event_types.value_min)
                / cast(event_types.value_range as double) * 1000000
            ) as bigint),
            0
        ) as value_millionths

    from partials
    left join event_types on partials.event_type = event_types.event_type

),

summed as (

    select
        item_id,
        hour,
        cast(sum(events) as bigint) as events,
        cast(sum(users) as bigint) as user_touches,
        sum(weight) as weight,
        cast(sum(valued_events) as bigint) as valued_events,
        cast(sum(value_millionths) as bigint) as value_millionths

    from valued
    group by item_id, hour

)

select * from summed
