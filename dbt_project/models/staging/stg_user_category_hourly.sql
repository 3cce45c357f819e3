with source as (

    select * from {{ lake('user_category_hourly') }}

),

renamed as (

    select
        user_id,
        category,
        weight,
        cast(hour at time zone 'UTC' as timestamp) as hour,
        dt

    from source

)

select * from renamed
