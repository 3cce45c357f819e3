with lists as (

    select
        *,
        {{ places_of('item_ids') }} as position

    from {{ ref('stg_impressions') }}

),

responses as (

    select * from {{ ref('stg_responses') }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

goal as (

    select max(funnel_step) as funnel_step
    from event_types

),

shown as (

    select
        request_id,
        user_id,
        surface,
        hour,
        position,
        {{ list_at('item_ids', 'position') }} as item_id,
        {{ list_at('sources', 'position') }} as source,
        coalesce({{ list_at('propensities', 'position') }} < 0.5, false) as explored

    from lists

),

-- The hour of the first click on an item shown, and of the first event of the funnel's end.
followed as (

    select
        shown.request_id,
        shown.hour,
        shown.surface,
        shown.source,
        shown.position,
        shown.explored,
        min(case when event_types.positive then responses.hour end) as click_hour,
        min(case when event_types.funnel_step = goal.funnel_step then responses.hour end)
            as conversion_hour

    from shown
    inner join responses
        on
            shown.request_id = responses.request_id
            and shown.item_id = responses.item_id
            and coalesce(shown.user_id, responses.user_id) = responses.user_id
            and responses.hour between shown.hour and shown.hour + {{ attribution_hours() }}
    inner join event_types on responses.event_type = event_types.event_type
    cross join goal
    group by
        shown.request_id,
        shown.hour,
        shown.surface,
        shown.source,
        shown.position,
        shown.explored

),

happened as (

    select
        hour,
        surface,
        source,
        position,
        explored,
        'impression' as what

    from shown

    union all

    select
        click_hour as hour,
        surface,
        source,
        position,
        explored,
        'click' as what

    from followed

    union all

    select
        conversion_hour as hour,
        surface,
        source,
        position,
        explored,
        'conversion' as what

    from followed

),

counted as (

    select
        hour,
        surface,
        source,
        position,
        cast(count_if(what = 'impression') as bigint) as impressions,
        cast(count_if(what = 'click') as bigint) as clicks,
        cast(count_if(what = 'conversion') as bigint) as conversions,
        cast(count_if(what = 'impression' and explored) as bigint) as explored_impressions,
        cast(count_if(what = 'click' and explored) as bigint) as explored_clicks

    from happened
    where {{ in_window() }}
    group by hour, surface, source, position

)

select
    {{ time_of_us('hour * 3600000000') }} as hour,
    surface,
    source,
    position,
    impressions,
    clicks,
    conversions,
    explored_impressions,
    explored_clicks,
    clicks / nullif(impressions, 0) as ctr,
    clicks * position / nullif(impressions, 0) as debiased_ctr

from counted
