with source as (

    select * from {{ lake('item_hourly') }}

),

renamed as (

    select
        item_id,
        event_type,
        events,
        users,
        cast(coalesce(value_sum, 0) as decimal(24, 6)) as value_sum,
        {{ partition_hour() }} as hour,
        dt

    from source

)

select * from renamed
