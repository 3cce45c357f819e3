with source as (

    select * from {{ lake('quarantine') }}

),

renamed as (

    select
        reason,
        {{ hour_of('received_ts') }} as hour

    from source

)

select * from renamed
