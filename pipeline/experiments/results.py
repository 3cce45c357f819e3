"""What became of an experiment: the lists that were shown, and the events that followed them.

A list is clicked when its user did something positive with one of its items under its `request_id`,
and converted when that was the last step of the domain's funnel. Users are what was dealt out, so
they, not lists, are what intervals count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nearline.domains import Domain
from nearline.errors import BadInput
from nearline.experiments import CONTROL, Experiment
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import EVENTS, Lake
from nearline.schema import EVENT_SCHEMA, EVENT_TYPE, ITEM_ID, USER_ID
from nearline.windows import Window
from pipeline.experiments.intervals import (
    NOT_BY_CHANCE_Z,
    Z_95,
    Interval,
    clustered_share,
    wilson,
)

_SHOWN = (USER_ID, "request_id", "arm", "item_ids", "experiment")
_DONE = (USER_ID, "request_id", ITEM_ID, EVENT_TYPE)
_COUNTS = ("lists", "clicked", "converted")

_PER_USER = """
with outcomes as (
    select
        any_value(shown.arm) as arm,
        shown.user_id,
        coalesce(bool_or(list_contains($positive, done.event_type)), false) as clicked,
        coalesce(bool_or(done.event_type = $goal), false) as converted
    from shown
    left join done
        on done.request_id = shown.request_id
        and done.user_id = shown.user_id
        and list_contains(shown.item_ids, done.item_id)
    group by shown.user_id, shown.request_id
)
select
    arm,
    user_id,
    count(*) as lists,
    count_if(clicked) as clicked,
    count_if(converted) as converted
from outcomes
group by arm, user_id
"""


@dataclass(frozen=True)
class ArmResult:
    """An arm's figures; the `lift` of one over the control's, None for the control itself.

    `dealt_well` is False where its share of the users cannot be the one that was set.
    """

    arm: str
    users: int
    lists: int
    clicked: Interval
    converted: Interval
    clicked_lift: Interval | None
    converted_lift: Interval | None
    dealt_well: bool


@dataclass(frozen=True)
class Results:
    """Of a window; `moved` users had several arms in it, and are left out."""

    experiment: str
    window: Window
    arms: Sequence[ArmResult]
    moved: int


def compute(
    lake: Lake,
    name: str,
    window: Window,
    domain: Domain,
    running: Experiment | None = None,
    *,
    z: float = Z_95,
) -> Results:
    """The results of an experiment; `running` is it as the file has it, where it still is there.

    Intervals are of `z` standard deviations. Raises BadInput when no list of the window was part of
    it, MissingPartition for a window that is not closed and cleaned yet or no longer kept.
    """
    for dataset in (IMPRESSIONS, EVENTS):
        lake.require_complete(dataset, window)
        lake.require_kept(dataset, window)
    users = _per_user(lake, name, window, domain)
    if not users.num_rows:
        raise BadInput(f"no list of {window} was part of an experiment {name!r}")
    counts = users[USER_ID].value_counts()
    moved = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    users = users.filter(pc.invert(pc.is_in(users[USER_ID], moved)))
    return Results(name, window, _judged(users, running, z), len(moved))


def _per_user(lake: Lake, name: str, window: Window, domain: Domain) -> pa.Table:
    """The lists of each user by each arm, and how many were clicked and converted.

    A day of lists and events is held at a time, and of the window what tells of any list.
    """
    goal = domain.funnel[-1] if domain.funnel else domain.touch
    telling = pa.array({*domain.positive, goal})
    done = pa.concat_tables(_done(lake, day, telling) for day in window.by_day())
    told = {"positive": domain.positive, "goal": goal}
    days = [_outcomes(_shown(lake, name, day), done, told) for day in window.by_day()]
    keys = ["arm", USER_ID]
    summed = pa.concat_tables(days).group_by(keys).aggregate([(of, "sum") for of in _COUNTS])
    summed = summed.rename_columns([*keys, *_COUNTS])
    return summed.sort_by([(key, "ascending") for key in keys])


def _shown(lake: Lake, name: str, day: Window) -> pa.Table:
    shown = lake.read(IMPRESSIONS, day, schema=IMPRESSION_SCHEMA, columns=_SHOWN)
    return shown.filter(pc.equal(shown["experiment"], name))


def _done(lake: Lake, day: Window, telling: pa.Array) -> pa.Table:
    done = lake.read(EVENTS, day, schema=EVENT_SCHEMA, columns=_DONE)
    tied = pc.and_(pc.is_valid(done["request_id"]), pc.is_in(done[EVENT_TYPE], telling))
    return done.filter(tied)


def _outcomes(shown: pa.Table, done: pa.Table, told: Mapping[str, Any]) -> pa.Table:
    import duckdb

    with duckdb.connect() as database:
        database.register("shown", shown)
        database.register("done", done)
        return database.sql(_PER_USER, params=told).to_arrow_table()


def _judged(users: pa.Table, running: Experiment | None, z: float) -> list[ArmResult]:
    names = sorted(pc.unique(users["arm"]).to_pylist(), key=lambda arm: (arm != CONTROL, arm))
    parts = {arm: users.filter(pc.equal(users["arm"], arm)) for arm in names}
    clicked, converted = (
        {
            arm: clustered_share(part[of].to_numpy(), part["lists"].to_numpy(), z=z)
            for arm, part in parts.items()
        }
        for of in ("clicked", "converted")
    )
    return [
        ArmResult(
            arm=arm,
            users=part.num_rows,
            lists=pc.sum(part["lists"]).as_py(),
            clicked=clicked[arm],
            converted=converted[arm],
            clicked_lift=_lift(clicked, arm),
            converted_lift=_lift(converted, arm),
            dealt_well=_dealt_well(arm, part.num_rows, users.num_rows, running),
        )
        for arm, part in parts.items()
    ]


def _lift(shares: dict[str, Interval], arm: str) -> Interval | None:
    control = shares.get(CONTROL)
    return None if arm == CONTROL or control is None else shares[arm].minus(control)


def _dealt_well(arm: str, users: int, total: int, running: Experiment | None) -> bool:
    if running is None or arm not in running.arms:
        return True
    # One in a thousand experiments whose users were dealt out well is suspected.
    found = wilson(users / total, total, z=NOT_BY_CHANCE_Z)
    return found.low <= running.arms[arm].share <= found.high
