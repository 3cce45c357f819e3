{{ config(
    materialized='incremental',
    incremental_strategy='window',
    on_schema_change='fail',
    meta={'window': {'column': 'session_start', 'days': true}}
) }}

with events as (

    select * from {{ ref('stg_events') }}
    where
        dt between cast({{ first_day() }} as date) and cast({{ last_day() }} as date)
        and {{ in_window('event_ts', days=true) }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

marked as (

    select
        *,
        lag(event_ts) over previous as previous_ts,
        lag(session_id) over previous as previous_session_id

    from events
    window previous as (
        partition by user_id, cast(event_ts as date) order by event_ts, event_id
    )

),

numbered as (

    select
        *,
        cast(event_ts as date) as day,
        sum(if(
            previous_ts is null
            or event_ts > previous_ts + interval 30 minute
            or session_id is distinct from previous_session_id,
            1, 0
        )) over (
            partition by user_id, cast(event_ts as date) order by event_ts, event_id
            rows unbounded preceding
        ) as session_number

    from marked

),

final as (

    select
        numbered.user_id || '/' || numbered.day || '/' || numbered.session_number as session_key,
        numbered.user_id,
        min(numbered.event_ts) as session_start,
        max(numbered.event_ts) as session_end,
        count(*) as events,
        count(distinct numbered.item_id) as items,
        count_if(event_types.positive) as positive_events,
        cast(coalesce(sum(event_types.weight), 0) as double) as weight

    from numbered
    left join event_types on numbered.event_type = event_types.event_type
    group by numbered.user_id, numbered.day, numbered.session_number

)

select * from final
