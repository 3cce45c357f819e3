{{ config(materialized='view') }}

with sessions as (

    select * from {{ ref('fct_sessions') }}

),

final as (

    select
        user_id,
        min(session_start) as first_seen_ts,
        max(session_end) as last_seen_ts,
        count(*) as sessions,
        cast(sum(events) as bigint) as events,
        cast(sum(positive_events) as bigint) as positive_events

    from sessions
    group by user_id

)

select * from final
