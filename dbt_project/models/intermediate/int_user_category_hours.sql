with partials as (

    select * from {{ ref('stg_user_category_hourly') }}
    where
        {{ days_in_reach(720) }}
        and {{ in_reach('hour', 720) }}

),

summed as (

    select
        user_id,
        category,
        hour,
        sum(weight) as weight

    from partials
    group by user_id, category, hour

)

select * from summed
