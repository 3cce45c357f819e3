"""What is asked of the lake's feature rows, in SQL that DuckDB and Spark both read.

A relation `rows_<n>` holds the rows of a view, `asked` the rows that the asker brings: keys and
moments, or the one range `[first, last]` of times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from nearline.schema import FEATURE_TS

ASKED = "asked"
MOMENT = "event_timestamp"
FIRST, LAST = "first_ts", "last_ts"


@dataclass(frozen=True)
class ViewQuery:
    """What is wanted of one view: `keys` is (its key, the asker's name of it) for each join key.

    `features` is (the view's feature, its name in the answer).
    """

    keys: Sequence[tuple[str, str]]
    features: Sequence[tuple[str, str]]
    ttl: timedelta | None


def rows_of(n: int) -> str:
    """The relation with the rows of the n-th view."""
    return f"rows_{n}"


def point_in_time(columns: Sequence[str], views: Sequence[ViewQuery]) -> str:
    """Each row of `asked` with the newest features that were known at its moment.

    Known are rows with a feature_ts up to the moment, and not older than it by more than the ttl,
    both ends included. The newest time is found before any feature is read, so that the join does
    not carry all hours of a key.
    """
    joins = [_as_of(n, view) for n, view in enumerate(views)]
    found = [f"f{n}.{name}" for n, view in enumerate(views) for _, name in view.features]
    selected = ", ".join([*(f"a.{column}" for column in columns), *found])
    return f"select {selected} from {ASKED} a\n" + "\n".join(joins)


def _as_of(n: int, view: ViewQuery) -> str:
    theirs = ", ".join(f"a.{asked}" for _, asked in view.keys)
    same_key = " and ".join(f"r.{key} = a.{asked}" for key, asked in view.keys)
    in_time = f"r.{FEATURE_TS} <= a.{MOMENT}"
    if view.ttl:
        ttl_s = round(view.ttl.total_seconds())
        in_time += f" and r.{FEATURE_TS} >= a.{MOMENT} - interval '{ttl_s}' second"
    features = ", ".join(f"r.{feature} as {name}" for feature, name in view.features)
    found_key = " and ".join(f"f{n}.{asked} = a.{asked}" for _, asked in view.keys)
    return f"""left join (
        select {theirs}, a.{MOMENT}, {features}
        from (
            select {theirs}, a.{MOMENT}, max(r.{FEATURE_TS}) as {FEATURE_TS}
            from (select distinct {theirs}, a.{MOMENT} from {ASKED} a) a
            inner join {rows_of(n)} r on {same_key} and {in_time}
            group by {theirs}, a.{MOMENT}
        ) a
        inner join {rows_of(n)} r on {same_key} and r.{FEATURE_TS} = a.{FEATURE_TS}
    ) f{n} on {found_key} and f{n}.{MOMENT} = a.{MOMENT}"""


def in_range(columns: Sequence[str]) -> str:
    """The rows with a time in the range that is asked for."""
    selected = ", ".join(f"r.{column}" for column in columns)
    return f"select {selected} from {rows_of(0)} r inner join {ASKED} a on {_WITHIN}"


def newest_in_range(keys: Sequence[str], columns: Sequence[str]) -> str:
    """Of those rows the newest of each key."""
    listed, selected = ", ".join(f"r.{key}" for key in keys), ", ".join(f"r.{c}" for c in columns)
    same = " and ".join(f"r.{name} = n.{name}" for name in (*keys, FEATURE_TS))
    return f"""
        select {selected} from {rows_of(0)} r inner join (
            select {listed}, max(r.{FEATURE_TS}) as {FEATURE_TS}
            from {rows_of(0)} r inner join {ASKED} a on {_WITHIN}
            group by {listed}
        ) n on {same}"""


_WITHIN = f"r.{FEATURE_TS} >= a.{FIRST} and r.{FEATURE_TS} <= a.{LAST}"
