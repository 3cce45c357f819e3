with source as (

    select * from {{ lake('user_category_hourly') }}

),

renamed as (

    select
        user_id,
        category,
        cast(weight as decimal(24, 6)) as weight,
        {{ partition_hour() }} as hour,
        dt

    from source

)

select * from renamed
