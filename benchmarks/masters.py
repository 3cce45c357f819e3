"""The same backfill by Spark on one core, on two, and on a cluster of two workers of one core each.

The lakes that come out are compared byte by byte. The cluster is a standalone one on loopback, of
this machine: it shows what going distributed costs, not what it gains.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cluster import spark_cluster
from benchmarks.harness import (
    days_before_end,
    load_stream,
    machine,
    run,
    run_step,
    workplace,
)
from nearline.console import JsonFlag, err, print_json, print_table


@dataclass(frozen=True)
class Figures:
    """What a backfill took on one master, against that on one core; memory is the driver's alone
    on a cluster, whose workers are no children of it."""

    master: str
    seconds: float
    cpu_seconds: float
    peak_mib: int
    against_one_core: float
    same_bytes: bool


def main(
    events: Annotated[int, typer.Option(min=1)] = 500_000,
    users: Annotated[int, typer.Option(min=1)] = 20_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    days: Annotated[int, typer.Option(min=1)] = 5,
    as_json: JsonFlag = False,
) -> None:
    """A backfill by Spark on one core, two, and a cluster: times, and whether the bytes agree.

    Example: python -m benchmarks.masters --events 500000 --days 5
    """
    with workplace(None) as folder, spark_cluster(folder / "cluster") as cluster:
        masters = {"local[1]": "local[1]", "local[2]": "local[2]", "2 workers": cluster.master}
        found: list[Figures] = []
        first: dict[str, str] = {}
        for number, (name, master) in enumerate(masters.items()):
            home = folder / f"home-{number}"
            load_stream(home, users=users, items=items, events=events, days=days)
            cost = run_step(
                home,
                "spark_features",
                days_before_end(days),
                spark_master=master,
                spark_executor_memory="768m",
            )
            err.print(f"{name}: {cost.seconds:.1f} s", highlight=False)
            written = checksums(home / "lake")
            first = first or written
            base = found[0].seconds if found else cost.seconds
            found.append(
                Figures(
                    name,
                    round(cost.seconds, 1),
                    round(cost.cpu_seconds, 1),
                    round(cost.peak_mib),
                    round(cost.seconds / base, 2),
                    written == first,
                )
            )
    rows = [vars(each) for each in found]
    if as_json:
        print_json({"machine": machine(), "events": events, "files": len(first), "masters": rows})
    else:
        print_table(f"{events:,} events", list(rows[0]), [list(row.values()) for row in rows])
    if not all(each.same_bytes for each in found):
        sys.exit(1)


def checksums(lake: Path) -> dict[str, str]:
    """The SHA-256 of every data file of a lake, by its path there."""
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(lake.rglob("*.parquet"))
    }


if __name__ == "__main__":
    run(main)
