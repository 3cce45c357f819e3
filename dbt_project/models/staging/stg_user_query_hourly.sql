with source as (

    select * from {{ lake('user_query_hourly', lookback_hours=720) }}

),

renamed as (

    select
        user_id,
        query,
        {{ hour_of('hour') }} as hour,
        events,
        {{ epoch_us('last_event_ts') }} as last_event_us

    from source

)

select * from renamed
