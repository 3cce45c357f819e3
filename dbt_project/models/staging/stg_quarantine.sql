with source as (

    select * from {{ lake('quarantine') }}

),

renamed as (

    select
        reason,
        {{ partition_hour() }} as hour,
        dt

    from source

)

select * from renamed
