{{ config(
    materialized='incremental',
    incremental_strategy='window',
    on_schema_change='fail',
    meta={'window': {'column': 'hour'}}
) }}

{%- set late_hours = env_var('NEARLINE_LATE_HOURS', '48') | int %}

with accepted as (

    select
        date_trunc('hour', received_ts) as hour,
        count(*) as events,
        count_if(event_ts < date_trunc('hour', received_ts)) as late_events

    from {{ ref('stg_events') }}
    where
        {{ days_in_reach(late_hours + 24) }}
        and {{ in_window('received_ts') }}
    group by date_trunc('hour', received_ts)

),

refused_by_reason as (

    select
        hour,
        reason,
        count(*) as events

    from {{ ref('stg_quarantine') }}
    where
        {{ days_in_reach(0) }}
        and {{ in_window('hour') }}
    group by hour, reason

),

refused as (

    select
        hour,
        cast(sum(events) as bigint) as quarantined,
        map(list(reason order by reason), list(events order by reason)) as quarantined_by_reason

    from refused_by_reason
    group by hour

),

joined as (

    select
        coalesce(accepted.hour, refused.hour) as hour,
        coalesce(accepted.events, 0) as events,
        coalesce(accepted.late_events, 0) as late_events,
        coalesce(refused.quarantined, 0) as quarantined,
        coalesce(refused.quarantined_by_reason, map()) as quarantined_by_reason

    from accepted
    full outer join refused on accepted.hour = refused.hour

)

select
    hour,
    events,
    late_events,
    quarantined,
    quarantined / (events + quarantined) as quarantined_share,
    quarantined_by_reason

from joined
