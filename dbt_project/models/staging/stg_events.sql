{%- set late_hours = env_var('NEARLINE_LATE_HOURS', '48') | int %}

with source as (

    select * from {{ lake('events', lookback_hours=late_hours, whole_days=true) }}

),

renamed as (

    select
        event_id,
        user_id,
        item_id,
        event_type,
        session_id,
        {{ epoch_us('event_ts') }} as event_us,
        {{ epoch_us('received_ts') }} as received_us

    from source

)

select * from renamed
