{{ config(meta={'window': {'column': 'feature_ts', 'ends': true}}) }}

with hours as (

    select hours.*
    from {{ ref('int_item_hours') }} as hours
    inner join {{ ref('dim_items') }} as items on hours.item_id = items.item_id
    where
        {{ in_reach('hours.hour', 168) }}
        and hours.weight > 0

),

scored_hours as (

    select distinct hour from hours
    where {{ in_window('hour') }}
    union
    select distinct hour + interval 168 hour as hour from hours
    where {{ in_window('hour + interval 168 hour') }}

),

scored as (

    select
        scored_hours.hour,
        hours.item_id,
        cast(sum({{ decayed_millionths(
            'hours.weight', "date_diff('hour', hours.hour, scored_hours.hour)", 24
        ) }}) as bigint) as millionths

    from scored_hours
    left join hours
        on
            scored_hours.hour >= hours.hour
            and scored_hours.hour - interval 168 hour < hours.hour
    group by scored_hours.hour, hours.item_id

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
    hour + interval 1 hour as feature_ts,
    coalesce(
        list(item_id order by position) filter (where item_id is not null), []
    ) as item_ids,
    coalesce(
        list(cast(millionths as double) / 1000000 order by position)
        filter (where item_id is not null),
        []
    ) as scores

from ranked
where position <= 100
group by hour
