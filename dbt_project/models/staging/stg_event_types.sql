with source as (

    select * from {{ lake('domain') }}

),

renamed as (

    select
        event_type,
        position,
        funnel_step,
        positive,
        cast(weight as decimal(12, 6)) as weight,
        cast(value_min as decimal(18, 6)) as value_min,
        case when value_required and value_max > value_min then value_max - value_min end
            as value_range

    from source

)

select * from renamed
