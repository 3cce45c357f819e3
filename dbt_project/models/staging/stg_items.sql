with source as (

    select * from {{ lake('catalogue') }}

),

renamed as (

    select
        item_id,
        title,
        categories,
        available,
        cast(created_ts at time zone 'UTC' as timestamp) as created_ts

    from source

)

select * from renamed
