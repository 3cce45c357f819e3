with events as (

    select
        event_us,
        {{ whole_part('received_us', 3600000000) }} as hour

    from {{ ref('stg_events') }}

),

accepted as (

    select
        hour,
        count(*) as events,
        cast(count_if(event_us < hour * 3600000000) as bigint) as late_events

    from events
    where {{ in_window() }}
    group by hour

),

refused_by_reason as (

    select
        hour,
        reason,
        count(*) as events,
        row_number() over (partition by hour order by reason) as position

    from {{ ref('stg_quarantine') }}
    group by hour, reason

),

refused as (

    select
        hour,
        cast(sum(events) as bigint) as quarantined,
        {{ ordered_list('reason', 'position') }} as reasons,
        {{ ordered_list('events', 'position') }} as quarantined_by_reason

    from refused_by_reason
    group by hour

),

joined as (

    select
        coalesce(accepted.hour, refused.hour) as hour,
        coalesce(accepted.events, 0) as events,
        coalesce(accepted.late_events, 0) as late_events,
        coalesce(refused.quarantined, 0) as quarantined,
        coalesce(refused.reasons, {{ list_of([]) }}) as reasons,
        coalesce(refused.quarantined_by_reason, {{ list_of([]) }}) as quarantined_by_reason

    from accepted
    full outer join refused on accepted.hour = refused.hour

)

select
    {{ time_of_us('hour * 3600000000') }} as hour,
    events,
    late_events,
    quarantined,
    quarantined / (events + quarantined) as quarantined_share,
    reasons,
    quarantined_by_reason

from joined
