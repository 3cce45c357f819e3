with source as (

    select * from {{ lake('catalogue') }}

),

renamed as (

    select
        item_id,
        title,
        categories,
        available,
        {{ epoch_us('created_ts') }} as created_us

    from source

)

select * from renamed
