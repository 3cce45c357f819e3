-- The partials of spark_jobs/partials.py, straight from the raw files, as one machine's best.
create table events as
select
    user_id,
    item_id,
    event_type,
    cast(event_ts as timestamptz) as ts,
    date_trunc('hour', cast(event_ts as timestamptz)) as hour,
    cast(value as double) as value,
    query
from read_parquet(getvariable('lake') || '/raw/*/*/data.parquet', hive_partitioning = false)
qualify row_number() over (partition by event_id order by received_ts) = 1;

create table user_hourly as
select
    user_id,
    event_type,
    hour,
    count(*) as events,
    count(value) as values,
    cast(coalesce(sum(cast(value as decimal(24, 6))), 0) as decimal(24, 6)) as value_sum,
    count(distinct item_id) as items,
    max(ts) as last_event_ts
from events
group by all;

create table item_hourly as
select
    item_id,
    event_type,
    hour,
    count(*) as events,
    count(distinct user_id) as users,
    count(value) as values,
    cast(coalesce(sum(cast(value as decimal(24, 6))), 0) as decimal(24, 6)) as value_sum
from events
where item_id is not null
group by all;

create table user_category_hourly as
select
    user_id,
    category,
    hour,
    count(*) as events,
    cast(sum(cast(weight as decimal(24, 6))) as decimal(24, 6)) as weight
from events
inner join (
    select item_id, unnest(categories) as category
    from read_parquet(getvariable('lake') || '/catalogue/data.parquet')
) using (item_id)
inner join read_parquet(getvariable('lake') || '/domain/data.parquet') using (event_type)
group by all;

create table user_session_hourly as
select
    user_id,
    hour,
    count(*) as events,
    min(ts) as first_event_ts,
    max(ts) as last_event_ts,
    count(*) filter (where gap_us > 1_800_000_000) as breaks,
    cast(coalesce(sum(gap_us) filter (where gap_us <= 1_800_000_000), 0) as bigint) as active_us
from (
    select
        *,
        epoch_us(ts) - epoch_us(lag(ts) over (partition by user_id, hour order by ts)) as gap_us
    from events
)
group by all;

create table user_query_hourly as
select
    user_id,
    left(lower(regexp_replace(trim(query), '\s+', ' ', 'g')), 100) as query,
    hour,
    count(*) as events,
    max(ts) as last_event_ts
from events
where trim(query) <> ''
group by all;
