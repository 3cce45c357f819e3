"""How often what was shown is clicked: the mart `hourly_clicks` summed over a window.

A place is looked at less the further down it is. With the chance 1 / place^eta that a place is
looked at, clicks weighed by its inverse tell what would be clicked if it were looked at (Joachims,
Swaminathan, Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017). Exploration
puts the same items at every place, so what it drew tells eta; without enough of it eta is 1.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from nearline.console import JsonFlag, err, print_json, print_table
from nearline.errors import BadInput
from nearline.lake import Lake
from nearline.schema import TIMESTAMP
from nearline.windows import Window
from pipeline.marts import HOURLY_CLICKS

FEWEST_EXPLORED_CLICKS = 100
"""With fewer, eta is assumed."""

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
    """What was shown and what followed. Rates are None where nothing was shown."""

    by: tuple[str, ...]
    impressions: int
    clicks: int
    conversions: int
    ctr: float | None
    debiased_ctr: float | None


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
    summed = table.group_by(keys).aggregate([(n, "sum") for n in (*_COUNTS[:3], "weighed")])
    return [
        Clicks(
            by=tuple(str(row[key]) for key in keys),
            impressions=row["impressions_sum"],
            clicks=row["clicks_sum"],
            conversions=row["conversions_sum"],
            ctr=_share(row["clicks_sum"], row["impressions_sum"]),
            debiased_ctr=_share(row["weighed_sum"], row["impressions_sum"]),
        )
        for row in summed.sort_by([(key, "ascending") for key in keys]).to_pylist()
    ]


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
            _percent(row.ctr),
            _percent(row.debiased_ctr),
        )
        for row in found.rows
    ]
    columns = [*keys, "impressions", "clicks", "conversions", "CTR", "debiased"]
    print_table(f"clicks, {start} to {end}", columns, rows)
    how = "as exploration tells" if found.estimated else "assumed: too little was explored"
    err.print(f"a place is looked at by 1 / place^{found.eta:g}, {how}", highlight=False)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"
