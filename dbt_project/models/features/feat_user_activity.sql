with types as (

    {{ weighed_types(ref('int_user_types'), 'user_id') }}

),

by_hour as (

    select
        user_id,
        hour,
        {% for hours in feature_windows() -%}
        {%- set window = window_name(hours) -%}
        cast(sum(events_{{ window }}) as bigint) as events_{{ window }},
        cast(sum(case when positive then events_{{ window }} else 0 end) as bigint)
            as positive_events_{{ window }},
        cast(sum(touches_{{ window }}) as bigint) as item_touches_{{ window }},
        cast(sum(active_hours_{{ window }}) as bigint) as active_hours_{{ window }},
        {% endfor -%}
        {{ six_decimals('cast(sum(fading_weight) as double) / 1e9') }} as decayed_weight,
        max(last_event_us) as last_event_us,
        {{ arrays_by_type() }}

    from types
    group by user_id, hour

)

select
    user_id,
    {{ end_of('hour') }} as feature_ts,
    {% for column in ['events', 'positive_events', 'item_touches', 'active_hours'] -%}
    {% for hours in feature_windows() -%}
    {{ column }}_{{ window_name(hours) }},
    {% endfor -%}
    {% endfor -%}
    decayed_weight,
    (hour + 1) * 3600 - {{ whole_part('last_event_us', 1000000) }} as recency_seconds,
    {{ time_of_us('last_event_us') }} as last_event_ts,
    {{ array_columns() }}

from by_hour
