{#-
  The body of a model: what a key did, by event type, in each feature window, at the hours of the
  run's window in which any of that changes. Only keys with such an hour are summed, and for each of
  these hours every event type of the domain has a row. `touches` is the column of the partials that
  counts those who were touched; of the columns `newest` the greatest in 30 days is kept.

  History stands beside a row of zeros for each hour asked for (`asked`): a range window over both
  gives the sums there.
-#}
{% macro rolled_by_type(partials, key, touches, newest=[]) -%}
{%- set counts = ['events', 'touches', 'active_hours'] -%}
{%- set windows = feature_windows() -%}
with hours as (

    select * from {{ partials }}

),

event_types as (

    select * from {{ ref('stg_event_types') }}

),

marks as (

    {{ marks('hours', key, windows) }}

),

known as (

    select
        hours.{{ key }},
        hours.event_type,
        hours.hour,
        false as asked,
        hours.events,
        hours.{{ touches }} as touches,
        case
            when hours.event_type = min(hours.event_type) over (
                partition by hours.{{ key }}, hours.hour
            ) then 1
            else 0
        end as active_hours,
        hours.valued_events,
        hours.value_sum,
        {% for column in newest -%}
        hours.{{ column }},
        {% endfor -%}
        {{ decay_units('hours.events', 24) }} as units_24h,
        {{ decay_units('hours.events', 168) }} as units_7d

    from hours
    semi join marks on hours.{{ key }} = marks.{{ key }}

),

with_asked as (

    select * from known
    union all
    select
        marks.{{ key }},
        event_types.event_type,
        marks.hour,
        true as asked,
        0 as events,
        0 as touches,
        0 as active_hours,
        0 as valued_events,
        0 as value_sum,
        {% for column in newest -%}
        null as {{ column }},
        {% endfor -%}
        0 as units_24h,
        0 as units_7d

    from marks
    cross join event_types

),

rolled as (

    select
        {{ key }},
        event_type,
        hour,
        asked,
        {% for column in counts -%}
        {{ rolling_sums(column, windows) }},
        {% endfor -%}
        cast(sum(valued_events) over last_30d as bigint) as valued_events_30d,
        sum(value_sum) over last_30d as value_sum_30d,
        {% for column in newest -%}
        max({{ column }}) over last_30d as {{ column }},
        {% endfor -%}
        {{ decay_sums('units_24h', 24) }},
        {{ decay_sums('units_7d', 168) }}

    from with_asked
    {{ rolling_windows(key ~ ', event_type', windows) }}

)

select
    {{ key }},
    event_type,
    hour,
    {% for column in counts -%}
    {% for hours in windows -%}
    {{ column }}_{{ window_name(hours) }},
    {% endfor -%}
    {% endfor -%}
    valued_events_30d,
    cast(value_sum_30d as decimal(36, 6)) as value_sum_30d,
    {% for column in newest -%}
    {{ column }},
    {% endfor -%}
    {{ decayed('units_24h', 24, parts=1000000000) }} as fading_billionths,
    {{ decayed('units_7d', 168) }} as decayed_millionths

from rolled
where asked
{%- endmacro %}


{#-
  The arrays of what a key did, in the order of the domain's event types, from `types`: rows of
  rolled_by_type beside those of stg_event_types.
-#}
{% macro arrays_by_type() -%}
{{ ordered_list('event_type', 'position') }} as event_types,
        {% for hours in feature_windows() -%}
        {{ ordered_list('events_' ~ window_name(hours), 'position') }}
            as events_by_type_{{ window_name(hours) }},
        {% endfor -%}
        {{ ordered_list('share_30d', 'position') }} as shares_by_type_30d,
        {{ ordered_list('decayed_millionths / 1e6', 'position') }} as decayed_by_type,
        {{ ordered_list('cast(value_sum_30d as double)', 'position') }} as value_sums_by_type_30d,
        {{ ordered_list('(value_millionths_30d / 1e6 + 5) / (scaled_events_30d + 10)', 'position') }}
            as mean_values_by_type_30d
{%- endmacro %}


{#- Rows of rolled_by_type, each with what the domain says of its type and its share of events. -#}
{% macro weighed_types(rolled, key) -%}
select
        rolled.*,
        event_types.position,
        event_types.positive,
        rolled.fading_billionths * event_types.weight as fading_weight,
        coalesce(
            rolled.events_30d
            / nullif(sum(rolled.events_30d) over (partition by rolled.{{ key }}, rolled.hour), 0),
            0e0
        ) as share_30d,
        case when event_types.value_range is null then 0 else rolled.valued_events_30d end
            as scaled_events_30d,
        case
            when event_types.value_range is null then 0
            else {{ rounded(
                'cast(rolled.value_sum_30d - rolled.valued_events_30d * event_types.value_min as double)'
                ~ ' / event_types.value_range * 1e6'
            ) }}
        end as value_millionths_30d

    from {{ rolled }} as rolled
    inner join {{ ref('stg_event_types') }} as event_types
        on rolled.event_type = event_types.event_type
{%- endmacro %}


{#- The names of the arrays that arrays_by_type makes. -#}
{% macro array_columns() -%}
  event_types,
    {% for hours in feature_windows() -%}
    events_by_type_{{ window_name(hours) }},
    {% endfor -%}
    shares_by_type_30d,
    decayed_by_type,
    value_sums_by_type_30d,
    mean_values_by_type_30d
{%- endmacro %}
