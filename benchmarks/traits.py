"""The shape of a log of events: popularity, activity, sessions, gaps, repeats, turnover.

A session ends after 30 idle minutes, unless the log names its sessions.
"""

from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer

from benchmarks.harness import run
from nearline.console import JsonFlag, print_json, print_table
from nearline.errors import BadInput

IDLE_S = 1800

_POPULARITY = """
with counts as (select count(*) n from events group by {key}),
ranked as (
    select n, row_number() over (order by n desc) - 1 as place, count(*) over () c from counts
)
select
    sum(n) filter (where place < greatest(c // 100, 1)) / sum(n) as top_1_percent,
    sum(n) filter (where place < greatest(c // 10, 1)) / sum(n) as top_10_percent,
    sum(n) filter (where place >= c // 2) / sum(n) as lower_half,
    avg(n) as mean, median(n) as median
from ranked
"""
_SESSIONS = """
select avg(n) as mean, avg((n = 1)::int) as of_one_event,
    quantile_cont(n, 0.5) as median, quantile_cont(n, 0.9) as p90, quantile_cont(n, 0.99) as p99
from (select count(*) n from events group by user_id, session)
"""
_GAPS = """
with gaps as (
    select session, epoch(ts) - epoch(lag(ts) over by_time) as gap_s,
        session is distinct from lag(session) over by_time as between
    from events window by_time as (partition by user_id order by ts)
)
select
    median(gap_s) filter (where not between) as median_s,
    quantile_cont(gap_s, 0.9) filter (where not between) as p90_s,
    quantile_cont(gap_s, 0.99) filter (where not between) as p99_s,
    median(gap_s / 86400) filter (where between) as median_days_between_sessions
from gaps where gap_s is not null
"""
_REPEATS = """
select 1 - count(distinct (user_id, item_id)) / count(*) as by_user,
    1 - count(distinct (user_id, session, item_id)) / count(*) as in_session
from events
"""
_TURNOVER = """
with weekly as (
    select epoch(ts)::bigint // 604800 as week, item_id, count(*) n from events group by all
),
top as (
    select week, item_id from weekly
    qualify row_number() over (partition by week order by n desc, item_id) <= 100
        and count(*) over (partition by week) >= 200
),
later as (
    select a.week, w.gap, count(b.item_id) / 100 as shared
    from top a cross join (values (1), (4)) w(gap)
    left join top b on b.week = a.week + w.gap and b.item_id = a.item_id
    where a.week + w.gap in (select week from top)
    group by all
)
select avg(shared) filter (where gap = 1) as shared_after_1_week,
    avg(shared) filter (where gap = 4) as shared_after_4_weeks
from later
"""


def measure(
    paths: list[Path], *, user: str, item: str, time: str | None, session: str | None
) -> dict[str, dict[str, Any]]:
    """The traits of a log, by subject; those that need a time are left out without one."""
    if time is None and session is None:
        raise BadInput("name the column of times or that of sessions: --time, --session")
    with duckdb.connect() as connection:
        _load(connection, paths, user=user, item=item, time=time, session=session)
        queries = {
            "items": _POPULARITY.format(key="item_id"),
            "users": _POPULARITY.format(key="user_id"),
            "sessions": _SESSIONS,
            "repeats": _REPEATS,
        }
        if time is not None:
            queries |= {"gaps": _GAPS, "top 100 items": _TURNOVER}
        return {subject: _row(connection, sql) for subject, sql in queries.items()}


def _load(
    connection: duckdb.DuckDBPyConnection,
    paths: list[Path],
    *,
    user: str,
    item: str,
    time: str | None,
    session: str | None,
) -> None:
    names = [str(path) for path in paths]
    source = "read_parquet" if names[0].endswith(".parquet") else "read_csv"
    connection.execute(
        f"""
        create table plain as select "{user}" as user_id, "{item}" as item_id,
            {_time(time)} as ts, {f'"{session}"' if session else "null"} as named
        from {source}($1) where "{item}" is not null
        """,
        [names],
    )
    idle = f"sum((gap_s > {IDLE_S})::int) over (partition by user_id order by ts, item_id)"
    connection.execute(
        f"""
        create table events as select user_id, item_id, ts,
            {"named" if session else f"coalesce({idle}, 0)"} as session
        from (
            select *, epoch(ts) - epoch(lag(ts) over (partition by user_id order by ts, item_id))
                as gap_s
            from plain
        )
        """
    )


def _time(column: str | None) -> str:
    """SQL for a time that is one, or seconds since 1970."""
    if column is None:
        return "null::timestamp"
    return f"""coalesce(try_cast("{column}" as timestamp), to_timestamp(
        try_cast("{column}"::text as double))::timestamp)"""


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    found = connection.sql(sql)
    (row,) = found.fetchall()
    return {
        name: None if value is None else round(float(value), 3)
        for name, value in zip(found.columns, row, strict=True)
    }


def main(
    paths: Annotated[list[Path], typer.Argument(help="CSV or parquet files of one log.")],
    user: Annotated[str, typer.Option(help="Column of users.")] = "user_id",
    item: Annotated[str, typer.Option(help="Column of items.")] = "item_id",
    time: Annotated[str | None, typer.Option(help="Column of times.")] = None,
    session: Annotated[str | None, typer.Option(help="Column of sessions.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell the shape of a log, to compare a synthetic stream with a real one.

    Example: python -m benchmarks.traits var/lake/raw/*/*/data.parquet --time received_ts
    """
    traits = measure(paths, user=user, item=item, time=time, session=session)
    if as_json:
        print_json(traits)
        return
    rows = [[subject, name, v] for subject, found in traits.items() for name, v in found.items()]
    print_table("traits", ["of", "figure", "value"], rows)


if __name__ == "__main__":
    run(main)
