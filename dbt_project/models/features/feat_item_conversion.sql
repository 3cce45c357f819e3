with types as (

    select * from {{ ref('int_item_types') }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

site_hours as (

    select
        event_type,
        hour,
        sum(events) as events

    from {{ ref('stg_item_hourly') }}
    group by event_type, hour

),

asked_hours as (

    select distinct hour from types

),

site as (

    select
        asked_hours.hour,
        site_hours.event_type,
        sum(case when site_hours.hour > asked_hours.hour - 168 then site_hours.events else 0 end)
            as events_7d,
        sum(site_hours.events) as events_30d

    from asked_hours
    inner join site_hours
        on
            asked_hours.hour >= site_hours.hour
            and asked_hours.hour - 720 < site_hours.hour
    group by asked_hours.hour, site_hours.event_type

),

steps as (

    select
        types.item_id,
        types.hour,
        types.event_type,
        event_types.funnel_step,
        types.events_7d,
        types.events_30d,
        coalesce(site.events_7d, 0) as site_7d,
        coalesce(site.events_30d, 0) as site_30d,
        max(event_types.funnel_step) over (partition by types.item_id, types.hour) as last_step

    from types
    inner join event_types on types.event_type = event_types.event_type
    left join site
        on
            types.hour = site.hour
            and types.event_type = site.event_type

),

paired as (

    select
        *,
        {% for column in ['events_7d', 'events_30d', 'site_7d', 'site_30d'] -%}
        lead({{ column }}) over following as next_{{ column }},
        {% endfor -%}
        max(case when funnel_step = last_step then events_30d end) over whole as reached_30d,
        max(case when funnel_step = last_step then site_30d end) over whole as site_reached_30d

    from steps
    window
        following as (
            partition by item_id, hour, funnel_step is null order by funnel_step
        ),
        whole as (partition by item_id, hour)

),

rated as (

    select
        item_id,
        hour,
        event_type,
        funnel_step,
        last_step,
        {% for window in ['7d', '30d'] -%}
        {{ smoothed_rate(
            'next_events_' ~ window, 'events_' ~ window, 'next_site_' ~ window, 'site_' ~ window
        ) }} as rate_{{ window }},
        {% endfor -%}
        {{ smoothed_rate('reached_30d', 'events_30d', 'site_reached_30d', 'site_30d') }}
            as conversion_30d

    from paired

)

select
    item_id,
    {{ end_of('hour') }} as feature_ts,
    {{ ordered_list('event_type', 'funnel_step', only='funnel_step is not null') }} as steps,
    {% for window in ['7d', '30d'] -%}
    {{ ordered_list('rate_' ~ window, 'funnel_step', only='funnel_step < last_step') }}
        as step_rates_{{ window }},
    {% endfor -%}
    coalesce(max(case when funnel_step = 0 and last_step > 0 then rate_30d end), 0e0)
        as click_through_30d,
    coalesce(max(case when funnel_step = 0 and last_step > 0 then conversion_30d end), 0e0)
        as conversion_30d

from rated
group by item_id, hour
