"""How far each dataset is: newest complete hour, its age, gaps, and what was removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nearline.errors import ReleaseError, StepFailed
from nearline.lake import Lake
from nearline.pushed import pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.windows import HOUR, Window

LAYERS = ("raw", "events", "quarantine", "partials", "features", "marts", "quality", "online")
"""The order of the ring; other layers come last."""

MOMENTS = ("item_neighbours", "_embedding")
"""Ends of the names of what is made for single moments: the hours between are no gaps."""

PAIRS = "cooccurrence"
NIGHTLY = (*MOMENTS, PAIRS)
"""Ends of the names of what is made every night."""

COLUMNS = ("dataset", "complete until", "age", "gaps", "stale", "rows", "since", "removed before")

_GAPS_SHOWN = 3


@dataclass(frozen=True)
class DatasetStatus:
    """`complete_until` is the end of the newest finished hour; `age` is measured from it.

    `gaps` are hours between finished ones that were never computed, `stale` those to be computed
    again; days before `expired` were removed. `rows` is what the runs that finished them reported.
    """

    dataset: str
    complete_from: datetime
    complete_until: datetime
    age: timedelta
    gaps: list[Window]
    stale: list[Window]
    expired: datetime | None
    rows: int

    @property
    def layer(self) -> str:
        """The first part of the dataset's name."""
        return self.dataset.split("/", 1)[0]

    def wrong(self, max_age: timedelta) -> list[str]:
        """What is not as it should be: too old, gaps, stale hours.

        What a night makes may be a day older.
        """
        found = []
        if self.age > max_age + timedelta(days=self.dataset.endswith(NIGHTLY)):
            until = f"{self.complete_until:%Y-%m-%dT%H:%M}Z"
            found.append(f"is {hours(self.age)} old (complete until {until})")
        found += [f"has {_summed(self.gaps)} missing: {told(self.gaps)}"] if self.gaps else []
        found += [f"has {_summed(self.stale)} stale: {told(self.stale)}"] if self.stale else []
        return [f"{self.dataset} {what}" for what in found]

    def row(self) -> dict[str, Any]:
        """The status as values for JSON."""
        return {
            "layer": self.layer,
            "dataset": self.dataset,
            "complete_from": self.complete_from.isoformat(),
            "complete_until": self.complete_until.isoformat(),
            "age_hours": round(self.age / HOUR, 2),
            "rows": self.rows,
            "gaps": [str(gap) for gap in self.gaps],
            "stale": [str(window) for window in self.stale],
            "expired_before": self.expired and self.expired.isoformat(),
        }

    def cells(self) -> list[Any]:
        """The status as a line of COLUMNS."""
        return [
            self.dataset,
            f"{self.complete_until:%Y-%m-%dT%H:%M}Z",
            hours(self.age),
            told(self.gaps),
            told(self.stale),
            f"{self.rows:,}",
            f"{self.complete_from:%Y-%m-%d}",
            self.expired and f"{self.expired:%Y-%m-%d}",
        ]


def dataset_status(lake: Lake, *, now: datetime) -> list[DatasetStatus]:
    """The state of every dataset that has finished hours, in the order of the ring."""
    found = [status for name in lake.datasets() if (status := _status(lake, name, now))]
    return sorted(found, key=lambda status: (_place(status.layer), status.dataset))


def _status(lake: Lake, dataset: str, now: datetime) -> DatasetStatus | None:
    ledger = lake.ledger(dataset)
    computed = ledger.computed()
    if not computed:
        return None
    until = computed[-1].end
    return DatasetStatus(
        dataset=dataset,
        complete_from=computed[0].start,
        complete_until=until,
        age=max(now - until, timedelta()),
        gaps=[] if dataset.endswith(MOMENTS) else ledger.gaps(),
        stale=ledger.stale(),
        expired=ledger.expired(),
        rows=ledger.rows(),
    )


def release_status(store: ReleaseStore, *, now: datetime) -> dict[str, Any] | None:
    """The active release as a row of values, like one of a dataset; None without one.

    `night` is the release that its line began with, `drift` how far it is from that one, `online`
    the release whose vectors are in the online store, or why that is not known; `damaged` says what
    is wrong with its files, and what the manifest would tell is None where that is.
    """
    version = store.active()
    if version is None:
        return None
    try:
        online = pushed()
    except StepFailed as error:
        online = str(error)
    manifest, damaged = _checked(store, version)
    return {
        "layer": "releases",
        "dataset": "releases/active",
        "complete_until": manifest and manifest.window_end.isoformat(),
        "age_hours": manifest and round(max(now - manifest.window_end, timedelta()) / HOUR, 2),
        "version": version,
        "night": manifest and manifest.base,
        "drift": manifest and manifest.drift and manifest.drift.model_dump(),
        "online": online,
        "damaged": damaged,
    }


def _checked(store: ReleaseStore, version: str) -> tuple[ReleaseManifest | None, str | None]:
    """A release's manifest, if it can be read, and what is wrong with the release, if anything."""
    manifest = None
    try:
        release = store.load(version)
        manifest = release.manifest
        release.verify()
    except ReleaseError as error:
        return manifest, str(error)
    return manifest, None


def _place(layer: str) -> int:
    return LAYERS.index(layer) if layer in LAYERS else len(LAYERS)


def told(windows: Sequence[Window]) -> str:
    """Some windows, and how many more there are."""
    shown = [_short(window) for window in windows[:_GAPS_SHOWN]]
    more = windows[_GAPS_SHOWN:]
    return ", ".join([*shown, f"and {len(more)} more ({_summed(more)})"] if more else shown)


def hours(age: timedelta) -> str:
    """An age in hours, or in days when there are many."""
    return f"{age / HOUR:.1f} h" if age < timedelta(days=3) else f"{age / timedelta(days=1):.1f} d"


def _short(window: Window) -> str:
    return f"{window.start:%Y-%m-%dT%H} + {(window.end - window.start) // HOUR} h"


def _summed(windows: Sequence[Window]) -> str:
    return f"{sum((w.end - w.start) // HOUR for w in windows)} h"
