with hours as (

    select
        hours.item_id,
        hours.hour,
        sum(hours.events * event_types.weight) as weight

    from {{ ref('stg_item_hourly') }} as hours
    semi join {{ ref('stg_items') }} as items on hours.item_id = items.item_id
    inner join {{ ref('stg_event_types') }} as event_types
        on hours.event_type = event_types.event_type
    where
        hours.hour >= {{ window_start() - 168 }}
        and event_types.weight > 0
    group by hours.item_id, hours.hour

),

marks as (

    {{ marks('hours', 'item_id', [168]) }}

),

asked_hours as (

    select distinct hour from marks

),

scored as (

    select
        asked_hours.hour,
        hours.item_id,
        cast(sum({{ rounded(
            'hours.weight * pow(5e-1, (asked_hours.hour - hours.hour) / 24e0) * 1e6'
        ) }}) as bigint) as millionths

    from asked_hours
    left join hours
        on
            asked_hours.hour >= hours.hour
            and asked_hours.hour - 168 < hours.hour
    group by asked_hours.hour, hours.item_id

),

ranked as (

    select
        hour,
        item_id,
        millionths,
        row_number() over (partition by hour order by millionths desc, item_id asc) as position

    from scored

)

select
    'all' as surface,
    {{ end_of('hour') }} as feature_ts,
    {{ ordered_list('item_id', 'position', only='item_id is not null') }} as item_ids,
    {{ ordered_list('millionths / 1e6', 'position', only='item_id is not null') }} as scores

from ranked
where position <= 100
group by hour
