with source as (

    select * from {{ lake('events', lookback_hours=attribution_hours()) }}

),

renamed as (

    select
        request_id,
        user_id,
        item_id,
        event_type,
        {{ hour_of('event_ts') }} as hour

    from source
    where request_id is not null and item_id is not null

)

select * from renamed
