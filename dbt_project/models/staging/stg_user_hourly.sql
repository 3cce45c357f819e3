with source as (

    select * from {{ lake('user_hourly') }}

),

renamed as (

    select
        user_id,
        event_type,
        events,
        items,
        cast(last_event_ts at time zone 'UTC' as timestamp) as last_event_ts,
        cast(hour at time zone 'UTC' as timestamp) as hour,
        dt

    from source

)

select * from renamed
