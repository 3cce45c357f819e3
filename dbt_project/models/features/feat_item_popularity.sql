with types as (

    {{ weighed_types(ref('int_item_types'), 'item_id') }}

),

items as (

    select * from {{ ref('stg_items') }}

),

by_hour as (

    select
        item_id,
        hour,
        {% for hours in feature_windows() -%}
        {%- set window = window_name(hours) -%}
        cast(sum(events_{{ window }}) as bigint) as events_{{ window }},
        cast(sum(touches_{{ window }}) as bigint) as user_touches_{{ window }},
        {% endfor -%}
        sum(scaled_events_30d) as scaled_events_30d,
        sum(value_millionths_30d) as value_millionths_30d,
        {{ six_decimals('cast(sum(fading_weight) as double) / 1e9') }} as decayed_weight,
        {{ arrays_by_type() }}

    from types
    group by item_id, hour

)

select
    by_hour.item_id,
    {{ end_of('by_hour.hour') }} as feature_ts,
    {% for column in ['events', 'user_touches'] -%}
    {% for hours in feature_windows() -%}
    by_hour.{{ column }}_{{ window_name(hours) }},
    {% endfor -%}
    {% endfor -%}
    (by_hour.events_24h + 1) / (by_hour.events_7d / 7e0 + 1) as velocity,
    (by_hour.value_millionths_30d / 1e6 + 5) / (by_hour.scaled_events_30d + 10)
        as mean_value_30d,
    case
        -- Not by greatest alone: it would take the missing time of a stranger for 0.
        when items.created_us is not null
            then greatest(
                0, (by_hour.hour + 1) * 3600 - {{ whole_part('items.created_us', 1000000) }}
            ) / 3600e0
    end as age_hours,
    by_hour.decayed_weight,
    {{ array_columns() }}

from by_hour
left join items on by_hour.item_id = items.item_id
