{{ config(materialized='view') }}

with items as (

    select * from {{ ref('stg_items') }}

),

final as (

    select
        item_id,
        title,
        categories,
        available,
        {{ time_of_us('created_us') }} as created_ts

    from items

)

select * from final
