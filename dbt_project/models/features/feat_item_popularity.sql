{{ config(meta={'window': {'column': 'feature_ts', 'ends': true}}) }}

{%- set counts = ['events', 'user_touches'] %}
{%- set sums = counts + ['valued_events', 'value_millionths'] %}

with hours as (

    select * from {{ ref('int_item_hours') }}

),

items as (

    select * from {{ ref('dim_items') }}

),

marked as (

    {{ active_and_expiring_hours('hours', 'item_id', sums) }}

),

merged as (

    select
        item_id,
        hour,
        {% for column in sums -%}
        sum({{ column }}) as {{ column }},
        {% endfor -%}
        count(*) as marks

    from marked
    group by item_id, hour

),

rolled as (

    select
        item_id,
        hour,
        {% for column in counts -%}
        {{ rolling_sums(column) }}
        {% endfor -%}
        sum(valued_events) over last_30d as valued_events_30d,
        sum(value_millionths) over last_30d as value_millionths_30d

    from merged
    {{ rolling_windows('item_id') }}

),

in_window as (

    select * from rolled
    where {{ in_window('hour') }}

)

select
    in_window.item_id,
    in_window.hour + interval 1 hour as feature_ts,
    {% for column in counts -%}
    {% for hours in feature_windows() -%}
    in_window.{{ column }}_{{ window_name(hours) }},
    {% endfor -%}
    {% endfor -%}
    (in_window.events_24h + 1) / (in_window.events_7d / 7.0 + 1) as velocity,
    (cast(in_window.value_millionths_30d as double) / 1000000 + 10 * 0.5)
    / (in_window.valued_events_30d + 10) as mean_value_30d,
    cast(greatest(
        0, date_diff('second', items.created_ts, in_window.hour + interval 1 hour)
    ) as double) / 3600 as age_hours

from in_window
left join items on in_window.item_id = items.item_id
