"""What the demo found: gathered step by step, printed for people, written as JSON."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from nearline.console import err, out, print_table
from nearline.lake import CATALOGUE, EVENTS, QUARANTINE, Lake
from nearline.releases import ReleaseStore
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA, QUARANTINE_SCHEMA, USER_ID
from nearline.settings import settings

HEADLINE = "ndcg@10"


@dataclass
class Report:
    """The demo's findings; the names are those of `report.json`."""

    events: int = 0
    users: int = 0
    items: int = 0
    quarantined: int = 0
    airflow_runs: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    lookups: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed_after_feedback: bool = False
    changed_after_nearline: bool = False
    latency_ms: dict[str, float] = field(default_factory=dict)
    freshness_seconds: dict[str, float] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    """Where what stays running can be reached; none where everything was stopped."""

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Times a step; gives a function that tells what the step is at."""
        began = time.monotonic()
        with err.status(name) as status:
            yield lambda at: status.update(f"{name} [dim]({at})[/]")
        seconds = round(time.monotonic() - began, 1)
        self.steps.append({"name": name, "seconds": seconds})
        err.print(f"[green]✓[/] {name} [dim]{seconds:.1f} s[/]", highlight=False)

    def count_lake(self) -> None:
        """Take the counts of what lies in the lake."""
        lake = Lake.open()
        events = lake.read(EVENTS, schema=EVENT_SCHEMA, columns=[USER_ID])
        self.events, self.users = events.num_rows, len(events[USER_ID].unique())
        self.items = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).num_rows
        self.quarantined = lake.read(
            QUARANTINE, schema=QUARANTINE_SCHEMA, columns=[USER_ID]
        ).num_rows

    def take_releases(self) -> None:
        """Take every release of the store, and the baselines of the newest nightly one."""
        for manifest in ReleaseStore.open().manifests():
            self.releases.append(
                {
                    "version": manifest.version,
                    "parent": manifest.parent,
                    "kind": manifest.kind,
                    "promoted": manifest.promoted,
                    "reasons": manifest.reasons,
                    "metrics": manifest.metrics,
                    "window": [manifest.window_start.isoformat(), manifest.window_end.isoformat()],
                }
            )
            self.baselines = manifest.baselines or self.baselines

    def take_runs(self, runs: Sequence[dict[str, Any]]) -> None:
        """Take what the scheduler says of its runs."""
        for run in runs:
            began, ended = (run.get(name) for name in ("start_date", "end_date"))
            seconds = _seconds(began, ended) if began and ended else None
            known = {name: run[name] for name in ("dag_id", "dag_run_id", "state")}
            known["run_id"] = known.pop("dag_run_id")
            self.airflow_runs.append(known | {"seconds": seconds, "started": began})

    def compare(self, feedback: set[str], *, new_release: bool) -> None:
        """Tell what feedback changed: at once, beyond leaving out the items rated, and by learning.

        The list after the new release counts as changed when its items or their order differ.
        """
        before, after, learned = (
            [item["item_id"] for item in self.lookups[name]["items"]]
            for name in ("known", "known_after_feedback", "known_after_nearline")
        )
        self.changed_after_feedback = after != [item for item in before if item not in feedback]
        self.changed_after_nearline = new_release and learned != after

    def write(self) -> Path:
        """Write `report.json` into the demo's folder."""
        path = settings().home / "report.json"
        path.write_text(json.dumps(asdict(self), indent=2, default=str) + "\n")
        return path

    def show(self) -> None:
        """Print what a person wants to see first."""
        print_table(
            "lake",
            ["events", "users", "items", "quarantined"],
            [[self.events, self.users, self.items, self.quarantined]],
        )
        print_table(
            "Airflow runs",
            ["DAG", "state", "seconds"],
            [[run["dag_id"], run["state"], run["seconds"]] for run in self.airflow_runs],
        )
        self._show_releases()
        self._show_lookups()
        print_table(
            "clocks",
            ["clock", "what happened is in the answer after"],
            [[clock, _human(seconds)] for clock, seconds in self.freshness_seconds.items()],
        )
        told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.latency_ms.items())
        out.print(f"one lookup over HTTP: {told}", highlight=False)
        self._show_where_to_look()

    def _show_where_to_look(self) -> None:
        home = settings().home
        places = {
            "report": f"{home}/report.json and report.png",
            "logs": f"{home}/airflow/logs, a file for each try of a task",
            "look around": f"NEARLINE_HOME={home} nearline status (or releases list)",
            **self.addresses,
        }
        if self.addresses:
            places["end it"] = "make down"
        for name, place in places.items():
            out.print(f"{name}: {place}", highlight=False, soft_wrap=True)

    def _show_releases(self) -> None:
        print_table(
            "releases",
            ["version", "parent", "gate", "first of its reasons"],
            [
                [
                    r["version"],
                    r["parent"],
                    "passed" if r["promoted"] else "refused",
                    next(iter(r["reasons"]), ""),
                ]
                for r in self.releases
            ],
        )
        nightly = [r["metrics"] for r in self.releases if r["kind"] == "nightly"]
        rows = {"Nearline, nightly": nightly[-1]} if nightly else {}
        rows |= self.baselines
        print_table(
            "next item, newest events, every item ranked",
            ["method", HEADLINE],
            [
                [name, f"{metrics.get(HEADLINE, float('nan')):.4f}"]
                for name, metrics in rows.items()
            ],
        )

    def _show_lookups(self) -> None:
        for name, lookup in self.lookups.items():
            titles = ", ".join(item["title"] or item["item_id"] for item in lookup["items"][:5])
            out.print(f"[bold]{name}[/] ({lookup['source']}): {titles}", highlight=False)


def _seconds(began: str, ended: str) -> float:
    first, last = (datetime.fromisoformat(text) for text in (began, ended))
    return round((last - first).total_seconds(), 1)


def _human(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"
