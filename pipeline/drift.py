"""Drift of features: the last day of each against the seven days before it.

The measure is the population stability index (Lewis 1994, "An Introduction to Credit Scoring"):
the sum of (p - q) ln(p / q) over bins, p and q the shares of now and before. Of two samples of the
same distribution it is not zero but about (bins - 1)(1/n + 1/m) (Yurdakul and Naranjo 2020,
"Statistical properties of the population stability index"); that is taken off. Above 0.25 is the
usual sign of a change that matters.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.windows import Window
from pipeline.marts import FEATURES
from pipeline.summaries import FEATURE_SUMMARY, SUMMARY_SCHEMA, write_summaries

log = logging.getLogger(__name__)

FEATURE_DRIFT = "quality/feature_drift"
DRIFT_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("feature", pa.string()),
        ("series", pa.string()),
        ("rows", pa.int64()),
        ("rows_before", pa.int64()),
        ("null_share", pa.float64()),
        ("null_share_before", pa.float64()),
        ("mean", pa.float64()),
        ("mean_before", pa.float64()),
        ("psi", pa.float64()),
        ("state", pa.string()),
        (FEATURE_TS, TIMESTAMP),
    ]
)
"""One series of a feature at FEATURE_TS.

`psi` is null, and `state` unknown, where there is too little to tell."""

STEADY, DRIFTED, UNKNOWN = "steady", "drifted", "unknown"

RECENT_HOURS, BEFORE_HOURS = 24, 168
LIMIT = 0.25
LEAST_ROWS = 500
"""On either side."""
LEAST_COVERED = 0.8
"""Share of the days before that must have been summarised: a young lake's features still grow."""
_POOLS = 10
_HALF = 0.5
"""Added to every count, so that an empty bin has a share too."""
_NULL = -(2**15)


@dataclass(frozen=True)
class _Seen:
    """A series over some hours: summaries added up, by bin; nulls are a bin of their own."""

    rows: int
    null_share: float | None
    mean: float | None
    counts: dict[int, int]

    @classmethod
    def of(cls, summaries: list[dict]) -> "_Seen":
        counts: dict[int, int] = {}
        for s in summaries:
            for place, count in [*zip(s["bins"], s["counts"], strict=True), (_NULL, s["nulls"])]:
                counts[place] = counts.get(place, 0) + count
        values, nulls = (sum(s[name] for s in summaries) for name in ("values", "nulls"))
        return cls(
            rows=sum(s["rows"] for s in summaries),
            null_share=nulls / (nulls + values) if nulls + values else None,
            mean=sum(s["value_sum"] for s in summaries) / values if values else None,
            counts=counts,
        )


def watch_features(window: Window) -> list[dict]:
    """Summarise the feature hours of `window`, and compare the day that ends with it.

    So are the hours before it that late events of the window changed. Of a long window only the
    hours that the comparison reads are summarised. Returns the rows (DRIFT_SCHEMA) of series that
    drifted, and warns of each. Raises MissingPartition when features of the window are not
    complete.
    """
    lake, datasets = Lake.open(), list(FEATURES.values())
    for dataset in datasets:
        lake.require_complete(dataset, window)
    changed = [lake.changed(dataset, window) for dataset in datasets]
    compared = Window.trailing(window.end, hours=RECENT_HOURS + BEFORE_HOURS)
    since = max(compared.start, min(each.start for each in changed))
    rows = write_summaries(lake, datasets, Window(since, window.end))
    lake.mark_complete(FEATURE_SUMMARY, window, rows=rows, since=since)
    found = compare(lake, window.end)
    last = Window.trailing(window.end, hours=1)
    lake.expand(FEATURE_DRIFT, last)
    lake.write_hour(FEATURE_DRIFT, last.start, found)
    lake.mark_complete(FEATURE_DRIFT, window, rows=found.num_rows)
    drifted = [row for row in found.to_pylist() if row["state"] == DRIFTED]
    for row in drifted:
        log.warning(told(row))
    return drifted


def compare(lake: Lake, end: datetime) -> pa.Table:
    """Each series of the day before `end` against the days before (DRIFT_SCHEMA), by its name."""
    recent = Window.trailing(end, hours=RECENT_HOURS)
    before = Window.trailing(recent.start, hours=BEFORE_HOURS)
    now, then = (_by_series(lake, window) for window in (recent, before))
    known = _covered_share(lake, before) >= LEAST_COVERED
    rows = [
        _compared(name, _Seen.of(now.get(name, [])), _Seen.of(then.get(name, [])), end, known)
        for name in sorted(now.keys() | then.keys())
    ]
    return pa.Table.from_pylist(rows, schema=DRIFT_SCHEMA)


def latest(lake: Lake) -> list[dict]:
    """The newest comparison (rows of DRIFT_SCHEMA), the farthest drifted first; none before one."""
    end = lake.watermark(FEATURE_DRIFT)
    if end is None:
        return []
    found = lake.read(FEATURE_DRIFT, Window.trailing(end, hours=1), schema=DRIFT_SCHEMA)
    return sorted(found.to_pylist(), key=lambda row: -1 if row["psi"] is None else -row["psi"])


DESCRIBED = ("feature", "PSI", "mean", "null share", "rows", "state")
"""What is told of a series."""


def described(row: dict) -> dict[str, str]:
    """A row of DRIFT_SCHEMA as short texts, the week before and the day after it side by side."""
    name = f"{row['dataset'].removeprefix('features/')} {row['feature']} ({row['series']})"
    before_and_now = (
        f"{_short(row[f'{figure}_before'])} → {_short(row[figure])}"
        for figure in ("mean", "null_share")
    )
    texts = (name, _short(row["psi"]), *before_and_now, str(row["rows"]), row["state"])
    return dict(zip(DESCRIBED, texts, strict=True))


def told(row: dict) -> str:
    """One line about a series that drifted."""
    found = described(row)
    return (
        f"drift: {found['feature']}: PSI {found['PSI']} is over {LIMIT}; mean {found['mean']}, "
        f"null share {found['null share']}, {found['rows']} rows"
    )


def _short(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


def _by_series(lake: Lake, window: Window) -> dict[tuple[str, str, str], list[dict]]:
    found: dict[tuple[str, str, str], list[dict]] = {}
    for row in lake.read(FEATURE_SUMMARY, window, schema=SUMMARY_SCHEMA).to_pylist():
        found.setdefault((row["dataset"], row["feature"], row["series"]), []).append(row)
    return found


def _covered_share(lake: Lake, window: Window) -> float:
    spans = [
        min(done.end, window.end) - max(done.start, window.start)
        for done in lake.covered(FEATURE_SUMMARY)
    ]
    return sum(max(span / (window.end - window.start), 0) for span in spans)


def _compared(
    name: tuple[str, str, str], now: _Seen, then: _Seen, end: datetime, known: bool
) -> dict:
    enough = known and min(now.rows, then.rows) >= LEAST_ROWS
    psi = stability(now.counts, then.counts, now.rows, then.rows) if enough else None
    state = UNKNOWN if psi is None else DRIFTED if psi > LIMIT else STEADY
    return {
        **dict(zip(("dataset", "feature", "series"), name, strict=True)),
        "rows": now.rows,
        "rows_before": then.rows,
        "null_share": now.null_share,
        "null_share_before": then.null_share,
        "mean": now.mean,
        "mean_before": then.mean,
        "psi": psi,
        "state": state,
        FEATURE_TS: end,
    }


def stability(now: dict[int, int], then: dict[int, int], n: int, m: int) -> float:
    """The population stability index of counts by bin, less what no drift would give; at least 0.

    `n` and `m` are the independent observations behind them: elements of one list are not.
    """
    places = sorted(place for place in now.keys() | then.keys())
    p, q = (np.array([counts.get(place, 0) for place in places], float) for counts in (now, then))
    pools = _pools(places, p / max(p.sum(), 1) + q / max(q.sum(), 1))
    p, q = np.bincount(pools, p), np.bincount(pools, q)
    kept = p + q > 0
    p, q = (_shares(counts[kept]) for counts in (p, q))
    index = float(np.sum((p - q) * np.log(p / q)))
    return max(index - (len(p) - 1) * (1 / n + 1 / m), 0.0)


def _pools(places: list[int], shares: np.ndarray) -> np.ndarray:
    """A pool for each bin: neighbours together, about a tenth of all in each; nulls apart."""
    until = np.cumsum(shares)
    middle = (until - shares / 2) / max(until[-1], 1e-12)
    pools = 1 + np.minimum((middle * _POOLS).astype(int), _POOLS - 1)
    pools[np.array(places) == _NULL] = 0
    return pools


def _shares(counts: np.ndarray) -> np.ndarray:
    return (counts + _HALF) / (counts + _HALF).sum()
