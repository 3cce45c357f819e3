with source as (

    select * from {{ lake('user_category_hourly', lookback_hours=720) }}

),

renamed as (

    select
        user_id,
        category,
        {{ hour_of('hour') }} as hour,
        weight

    from source

)

select * from renamed
