with source as (

    select * from {{ lake('impressions', lookback_hours=attribution_hours()) }}

),

renamed as (

    select
        request_id,
        user_id,
        coalesce(surface, '') as surface,
        item_ids,
        sources,
        propensities,
        {{ hour_of('received_ts') }} as hour

    from source
    where {{ list_length('item_ids') }} > 0

)

select * from renamed
