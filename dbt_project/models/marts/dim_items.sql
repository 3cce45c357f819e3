with items as (

    select * from {{ ref('stg_items') }}

),

final as (

    select
        item_id,
        title,
        categories,
        available,
        created_ts

    from items

)

select * from final
