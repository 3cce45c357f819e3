with source as (

    select * from {{ lake('domain') }}

),

renamed as (

    select
        event_type,
        positive,
        cast(weight as decimal(12, 6)) as weight,
        coalesce(value_required, false) as value_required,
        cast(value_min as decimal(18, 6)) as value_min,
        cast(value_max as decimal(18, 6)) as value_max

    from source

)

select * from renamed
