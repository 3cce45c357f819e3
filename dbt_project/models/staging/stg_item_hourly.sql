with source as (

    select * from {{ lake('item_hourly', lookback_hours=720) }}

),

renamed as (

    select
        source.item_id,
        source.event_type,
        {{ hour_of('source.hour') }} as hour,
        source.events,
        source.users,
        source.values as valued_events,
        source.value_sum

    from source

)

select * from renamed
