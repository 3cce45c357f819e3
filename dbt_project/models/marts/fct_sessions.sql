with events as (

    select
        *,
        {{ whole_part('event_us', 86400000000) }} as day

    from {{ ref('stg_events') }}
    where {{ in_days(whole_part('event_us', 86400000000)) }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

marked as (

    select
        *,
        lag(event_us) over previous as previous_us,
        lag(session_id) over previous as previous_session_id

    from events
    window previous as (partition by user_id, day order by event_us, event_id)

),

numbered as (

    select
        *,
        sum(
            case
                when
                    previous_us is null
                    or event_us > previous_us + 1800000000
                    or session_id is distinct from previous_session_id
                    then 1
                else 0
            end
        ) over (
            partition by user_id, day order by event_us, event_id rows unbounded preceding
        ) as session_number

    from marked

),

summed as (

    select
        numbered.user_id,
        numbered.day,
        numbered.session_number,
        min(numbered.event_us) as first_us,
        max(numbered.event_us) as last_us,
        count(*) as events,
        count(distinct numbered.item_id) as items,
        cast(count_if(event_types.positive) as bigint) as positive_events,
        cast(coalesce(sum(event_types.weight), 0) as double) as weight

    from numbered
    left join event_types on numbered.event_type = event_types.event_type
    group by numbered.user_id, numbered.day, numbered.session_number

)

select
    user_id || '/' || cast({{ time_of_us('day * 86400000000') }} as date) || '/' || session_number
        as session_key,
    user_id,
    {{ time_of_us('first_us') }} as session_start,
    {{ time_of_us('last_us') }} as session_end,
    events,
    items,
    positive_events,
    weight

from summed
