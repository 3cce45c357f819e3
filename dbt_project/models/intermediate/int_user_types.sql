{{ rolled_by_type(
    ref('stg_user_hourly'), 'user_id', touches='items', newest=['last_event_us']
) }}
