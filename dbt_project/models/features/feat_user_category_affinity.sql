{{ config(meta={'window': {'column': 'feature_ts', 'ends': true}}) }}

with hours as (

    select * from {{ ref('int_user_category_hours') }}

),

scored_hours as (

    select distinct
        user_id,
        hour

    from hours
    where {{ in_window('hour') }}
    union
    select distinct
        user_id,
        hour + interval 720 hour as hour

    from hours
    where {{ in_window('hour + interval 720 hour') }}

),

scored as (

    select
        scored_hours.user_id,
        scored_hours.hour,
        hours.category,
        cast(sum({{ decayed_millionths(
            'hours.weight', "date_diff('hour', hours.hour, scored_hours.hour)", 168
        ) }}) as bigint) as millionths

    from scored_hours
    left join hours
        on
            scored_hours.user_id = hours.user_id
            and scored_hours.hour >= hours.hour
            and scored_hours.hour - interval 720 hour < hours.hour
    group by scored_hours.user_id, scored_hours.hour, hours.category

),

ranked as (

    select
        user_id,
        hour,
        category,
        millionths,
        sum(millionths) over (partition by user_id, hour) as total,
        row_number() over (
            partition by user_id, hour order by millionths desc, category asc
        ) as position

    from scored

)

select
    user_id,
    hour + interval 1 hour as feature_ts,
    coalesce(list(category order by position) filter (where millionths > 0), []) as categories,
    coalesce(
        list(round(cast(millionths as double) / cast(total as double), 6) order by position)
        filter (where millionths > 0),
        []
    ) as affinities

from ranked
where position <= 20
group by user_id, hour
