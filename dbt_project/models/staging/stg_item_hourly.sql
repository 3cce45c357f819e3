with source as (

    select * from {{ lake('item_hourly') }}

),

renamed as (

    select
        item_id,
        event_type,
        events,
        users,
        value_sum,
        cast(hour at time zone 'UTC' as timestamp) as hour,
        dt

    from source

)

select * from renamed
