{{ rolled_by_type(ref('stg_item_hourly'), 'item_id', touches='users') }}
