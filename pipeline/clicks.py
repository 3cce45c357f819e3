"""How often what was shown is clicked: the mart `hourly_clicks` summed over a window.

A place is looked at less the further down it is. With the chance 1 / place^eta that a place is
looked at, clicks weighed by its inverse tell what would be clicked if it were looked at (Joachims,
Swaminathan, Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017). Exploration
puts the same items at every place, so what it drew tells eta; without enough of it eta is 1.

Intervals of the CTR are at 95 %, counted over hours: the mart knows no users, but what one user is
shown and clicks lies mostly within an hour, so that hours differ by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import typer

from nearline.console import JsonFlag, err, print_json, print_table
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import TIMESTAMP
from nearline.windows import Window
from pipeline.experiments.intervals import clustered_share
from pipeline.marts import HOURLY_CLICKS

FEWEST_EXPLORED_CLICKS = 100
"""With fewer, eta is assumed."""

FEWEST_HOURS = 20
"""With fewer, nothing tells how hours differ."""

ASSUMED_ETA = 1.0
_ETAS = np.linspace(0, 3, 301)
_COUNTS = ("impressions", "clicks", "conversions", "explored_impressions", "explored_clicks")
_SCHEMA = pa.schema(
    [
        ("hour", TIMESTAMP),
        ("surface", pa.string()),
        ("source", pa.string()),
        ("position", pa.int64()),
        *((name, pa.int64()) for name in _COUNTS),
    ]
)


class By(StrEnum):
    """What clicks are told apart by; hours and days are UTC."""

    SURFACE = "surface"
    SOURCE = "source"
    POSITION = "position"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True)
class Clicks:
    """What was shown and what followed. Rates are None where nothing was shown.

    `ctr_95` are the bounds of the CTR; None where too few hours tell of it.
    """

    by: tuple[str, ...]
    impressions: int
    clicks: int
    conversions: int
    ctr: float | None
    ctr_95: tuple[float, float] | None
    debiased_ctr: float | None


class Hour(NamedTuple):
    """The clicks and impressions of one hour."""

    clicks: int
    impressions: int


@dataclass(frozen=True)
class ClicksReport:
    """Rows in the order of their keys; places are looked at by 1 / place^`eta`.

    `estimated`: eta comes from what was explored in the window.
    """

    eta: float
    estimated: bool
    rows: Sequence[Clicks]


def compute(lake: Lake, window: Window, by: Sequence[By]) -> ClicksReport:
    """What was clicked of what was shown in `window`.

    Raises MissingPartition for a window whose marts were not built, or are no longer kept, BadInput
    when nothing was shown in it.
    """
    lake.require_complete(HOURLY_CLICKS, window)
    lake.require_kept(HOURLY_CLICKS, window)
    table = lake.read(HOURLY_CLICKS, window, schema=_SCHEMA)
    if not table.num_rows:
        raise BadInput(f"nothing was shown in {window}")
    places = table["position"].to_numpy()
    explored = [table[f"explored_{name}"].to_numpy() for name in ("impressions", "clicks")]
    estimated = explored[1].sum() >= FEWEST_EXPLORED_CLICKS
    eta = estimated_eta(places, *explored) if estimated else ASSUMED_ETA
    weighed = pa.array(table["clicks"].to_numpy() * places.astype(float) ** eta)
    return ClicksReport(eta, bool(estimated), _rows(table.append_column("weighed", weighed), by))


def estimated_eta(places: np.ndarray, shown: np.ndarray, clicked: np.ndarray) -> float:
    """The eta that makes the clicks of what was explored likeliest, as Poisson counts.

    `clicked` of `shown` items at each of `places`, int64 (rows,); a step of 0.01 is near enough.
    """
    looked_at = places[None, :] ** -_ETAS[:, None]
    rates = clicked.sum() / (looked_at @ shown)
    expected = rates[:, None] * looked_at
    return float(_ETAS[np.argmax(np.log(expected) @ clicked - expected @ shown)])


def _rows(table: pa.Table, by: Sequence[By]) -> list[Clicks]:
    hours = [hour.strftime("%Y-%m-%dT%H:%MZ") for hour in table["hour"].to_pylist()]
    days = pa.array([hour[:10] for hour in hours])
    table = table.drop_columns(["hour"])
    table = table.append_column("hour", pa.array(hours)).append_column("day", days)
    keys = [str(key) for key in by]
    hourly = _by_hour(table, keys)
    summed = table.group_by(keys).aggregate([(n, "sum") for n in (*_COUNTS[:3], "weighed")])
    return [
        Clicks(
            by=_key(row, keys),
            impressions=row["impressions_sum"],
            clicks=row["clicks_sum"],
            conversions=row["conversions_sum"],
            ctr=_share(row["clicks_sum"], row["impressions_sum"]),
            ctr_95=_bounds(hourly[_key(row, keys)]),
            debiased_ctr=_share(row["weighed_sum"], row["impressions_sum"]),
        )
        for row in summed.sort_by([(key, "ascending") for key in keys]).to_pylist()
    ]


def _by_hour(table: pa.Table, keys: Sequence[str]) -> dict[tuple[str, ...], list[Hour]]:
    """The clicks and impressions of each hour, for each group of rows."""
    sums = [("clicks", "sum"), ("impressions", "sum")]
    found: dict[tuple[str, ...], list[Hour]] = {}
    for row in table.group_by([*dict.fromkeys([*keys, "hour"])]).aggregate(sums).to_pylist():
        hour = Hour(row["clicks_sum"], row["impressions_sum"])
        found.setdefault(_key(row, keys), []).append(hour)
    return found


def _key(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in keys)


def _bounds(hours: Sequence[Hour]) -> tuple[float, float] | None:
    """The bounds of a CTR; None where too few hours tell of it, or clicks of lists before them."""
    clicked, shown = zip(*hours, strict=True)
    if len(hours) < FEWEST_HOURS or sum(clicked) > sum(shown):
        return None
    found = clustered_share(clicked, shown)
    return found.low, found.high


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def clicks(
    start: Annotated[str, typer.Option(help="First hour, as 2026-01-31T13:00Z.")],
    end: Annotated[str, typer.Option(help="The hour after the last.")],
    by: Annotated[list[By] | None, typer.Option(help="Told apart by; may be repeated.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """How often what was shown was clicked, and led to the funnel's goal.

    Debiased: clicks weighed by the inverse of the chance that their place was looked at.
    Example: nearline clicks --start 2026-01-01T00:00Z --end 2026-01-08T00:00Z --by source
    """
    keys = by or [By.SURFACE, By.SOURCE]
    found = compute(Lake.open(), Window.parse(start, end), keys)
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        (
            *row.by,
            row.impressions,
            row.clicks,
            row.conversions,
            _percent(row.ctr, row.ctr_95),
            _percent(row.debiased_ctr),
        )
        for row in found.rows
    ]
    columns = [*keys, "impressions", "clicks", "conversions", "CTR", "debiased"]
    print_table(f"clicks, {start} to {end}", columns, rows)
    how = "as exploration tells" if found.estimated else "assumed: too little was explored"
    err.print(f"a place is looked at by 1 / place^{found.eta:g}, {how}", highlight=False)


def _percent(share: float | None, bounds: tuple[float, float] | None = None) -> str | None:
    if share is None:
        return None
    between = f" ({100 * bounds[0]:.2f} to {100 * bounds[1]:.2f})" if bounds else ""
    return f"{100 * share:.2f} %{between}"
