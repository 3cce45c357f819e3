with source as (

    select * from {{ lake('user_session_hourly', lookback_hours=720) }}

),

renamed as (

    select
        user_id,
        {{ hour_of('hour') }} as hour,
        events,
        breaks,
        active_us,
        {{ epoch_us('first_event_ts') }} as first_event_us,
        {{ epoch_us('last_event_ts') }} as last_event_us

    from source

)

select * from renamed
