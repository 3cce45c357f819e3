with source as (

    select * from {{ lake('events') }}

),

renamed as (

    select
        event_id,
        user_id,
        item_id,
        event_type,
        session_id,
        cast(event_ts at time zone 'UTC' as timestamp) as event_ts,
        cast(received_ts at time zone 'UTC' as timestamp) as received_ts,
        dt

    from source

)

select * from renamed
