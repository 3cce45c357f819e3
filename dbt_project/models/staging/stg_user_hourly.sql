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
        {{ partition_hour() }} as hour,
        dt

    from source

)

select * from renamed
