"""Items that nobody touched: how well is what only its content tells foreseen?

Some items are left out of all that is learned. Where one of them is the last item of a user, it is
asked for as any other, and stands in the catalogue.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import run
from nearline.console import JsonFlag, print_json, print_table
from training.evaluation import Evaluation, interval
from training.protocols import judge_leave_one_out
from training.recipe import load_recipe
from training.sequences import read_attributes, read_sequences


@dataclass(frozen=True)
class Part:
    """Some of the events that are asked for; `share` is their NDCG against that of the others."""

    events: int
    ndcg: float
    low: float
    high: float
    share: float


def left_out(items: Collection[str], share: float, *, seed: int) -> set[str]:
    """A share of the items, drawn at random."""
    rng = np.random.default_rng(seed)
    return set(rng.permutation(sorted(items))[: round(share * len(items))].tolist())


def without(
    sequences: Mapping[str, Sequence[str]], cold: Collection[str]
) -> dict[str, Sequence[str]]:
    """The sequences without cold items, but for each user's last one, where others lie before."""
    left = {
        user: [*(item for item in items[:-1] if item not in cold), items[-1]]
        for user, items in sequences.items()
    }
    return {user: items for user, items in left.items() if len(items) > 1}


def parts(found: Evaluation, is_cold: np.ndarray, *, seed: int) -> list[Part]:
    """The events that ask for a cold item (bool), then the others."""
    warm = float(found.ndcg[~is_cold].mean())
    told = []
    for part in (found.only(is_cold), found.only(~is_cold)):
        low, high = interval(part.ndcg, part.users, seed=seed)
        ndcg = float(part.ndcg.mean())
        told.append(Part(len(part.ranks), ndcg, low, high, ndcg / warm))
    return told


def main(
    sequences: Annotated[Path, typer.Option(help="`user item item …` a line; may be .xz.")],
    attributes: Annotated[Path, typer.Option(help="Content of the items; may be .xz.")],
    share: Annotated[float, typer.Option(min=0, max=0.5, help="Share that is left out.")] = 0.05,
    size: Annotated[str, typer.Option(help="small, base, large, or a YAML file.")] = "small",
    max_minutes: Annotated[float, typer.Option(help="The training stops after this.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 17,
    as_json: JsonFlag = False,
) -> None:
    """How well items are foreseen of which nothing was learned, against all others.

    Example: python -m benchmarks.cold --sequences beauty.txt.xz --attributes attributes.json.xz
    """
    os.environ.setdefault("NEARLINE_TRACK", "none")
    whole = read_sequences(sequences)
    items = sorted({item for touched in whole.values() for item in touched})
    cold = left_out(items, share, seed=seed)
    learned = without(whole, cold)
    judged = judge_leave_one_out(
        learned,
        read_attributes(attributes),
        load_recipe(size),
        max_minutes=max_minutes,
        seed=seed,
        name=f"{sequences.name} without {len(cold)} items",
    )
    last = {user: items[-1] in cold for user, items in learned.items()}
    is_cold = np.array([last[user] for user in judged.users])
    found = dict(zip(("cold", "others"), parts(judged.found, is_cold, seed=seed), strict=True))
    if as_json:
        print_json({name: asdict(part) for name, part in found.items()})
        return
    rows = [
        [name, p.events, f"{p.ndcg:.4f}", f"{p.low:.4f} to {p.high:.4f}", f"{p.share:.0%}"]
        for name, p in found.items()
    ]
    print_table(
        f"{sequences.name}, {len(cold)} of {len(items)} items left out",
        ["items", "events", "NDCG@10", "95 %", "of the others"],
        rows,
    )


if __name__ == "__main__":
    run(main)
