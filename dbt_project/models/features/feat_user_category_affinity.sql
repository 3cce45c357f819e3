with hours as (

    select * from {{ ref('stg_user_category_hourly') }}

),

marks as (

    {{ marks('hours', 'user_id', [720]) }}

),

known as (

    select
        hours.user_id,
        hours.category,
        hours.hour,
        {{ decay_units('hours.weight', 168) }} as units

    from hours
    semi join marks on hours.user_id = marks.user_id

),

scored as (

    {{ scored_at_marks('known', 'category') }}

),

ranked as (

    select
        *,
        row_number() over (partition by user_id, hour order by millionths desc, category asc)
            as position,
        millionths / sum(millionths) over (partition by user_id, hour) as share,
        count(*) over (partition by user_id, hour) as categories

    from scored

),

by_hour as (

    select
        user_id,
        hour,
        {{ ordered_list('category', 'position', only='position <= 20') }} as categories,
        {{ ordered_list(six_decimals('share'), 'position', only='position <= 20') }} as affinities,
        count(*) as distinct_categories,
        -- Whole billionths: they add up the same in any order.
        sum({{ rounded('-share * ln(share) * 1e9') }}) / 1e9 / ln(max(greatest(categories, 2)))
            as diversity

    from ranked
    group by user_id, hour

)

select
    marks.user_id,
    {{ end_of('marks.hour') }} as feature_ts,
    coalesce(by_hour.categories, {{ list_of([]) }}) as categories,
    coalesce(by_hour.affinities, {{ list_of([]) }}) as affinities,
    coalesce(by_hour.distinct_categories, 0) as distinct_categories,
    coalesce({{ six_decimals('by_hour.diversity') }}, 0e0) as diversity

from marks
left join by_hour
    on
        marks.user_id = by_hour.user_id
        and marks.hour = by_hour.hour
