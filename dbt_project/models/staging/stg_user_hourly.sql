with source as (

    select * from {{ lake('user_hourly', lookback_hours=720) }}

),

renamed as (

    select
        source.user_id,
        source.event_type,
        {{ hour_of('source.hour') }} as hour,
        source.events,
        source.items,
        source.values as valued_events,
        source.value_sum,
        {{ epoch_us('source.last_event_ts') }} as last_event_us

    from source

)

select * from renamed
