"""The model against those of other libraries: the same events, the same questions, the same judge.

Each user's last item is to be foreseen among all items, as `nearline evaluate` asks. Transformers
are of the same width, depth and length, learn for as long at most, on as many threads or on a GPU
(NEARLINE_TRAIN_DEVICE), and stop by what they foresee of the item before the last.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import machine, run, workplace
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.errors import BadInput, StepFailed
from nearline.settings import settings
from training.evaluation import TOP, Evaluation, interval
from training.protocols import Judged, judge_leave_one_out
from training.recipe import Recipe, load_recipe
from training.sequences import read_attributes, read_sequences, read_split_sequences

_SCRIPT = Path(__file__).parent / "peers" / "rectools_peers.py"
_PYTHON = Path(".venv-peers/bin/python")
NAMES = ("popular", "knn", "als", "sasrec", "hstu")
OURS = "nearline"
_NEGATIVES, _PATIENCE = 256, 5

Sequences = dict[str, list[str]]


@dataclass(frozen=True)
class Figures:
    """How well one model foresees (95 % intervals over users), and what it took.

    `behind` is what our model's NDCG@10 is ahead of it by, user by user, and the interval of that.
    """

    model: str
    ndcg: float
    ndcg_interval: tuple[float, float]
    hit_rate: float
    coverage: float
    passes: int
    seconds: float
    behind: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Peers:
    """Where the peers run, and by which sizes."""

    python: Path
    recipe: Recipe
    minutes: float
    seed: int
    threads: int

    def options(self) -> list[str]:
        """What the script is told."""
        shape = self.recipe.model
        told = {
            "seed": self.seed,
            "threads": self.threads,
            "device": settings().train_device,
            "max-minutes": self.minutes,
            "dim": shape.dim,
            "layers": shape.layers,
            "heads": shape.heads,
            "length": shape.length,
            "dropout": _DROPOUT,
            "learning-rate": _LEARNING_RATE,
            "negatives": _NEGATIVES,
            "patience": _PATIENCE,
        }
        return [text for name, value in told.items() for text in (f"--{name}", str(value))]


_DROPOUT, _LEARNING_RATE = 0.2, 0.001
"""The library's own defaults: ours are tuned to our model."""


def ask_peer(
    name: str, peers: Peers, sequences: Sequences, folder: Path
) -> tuple[np.ndarray, dict]:
    """The lists that a peer answers, rows of items (users, 10), and what it tells of itself.

    Raises StepFailed, with its last words, when it fails.
    """
    err.print(f"{name} learns", highlight=False)
    answers = folder / f"{name}.npz"
    command = [str(peers.python), str(_SCRIPT), name, str(_events(sequences, folder)), str(answers)]
    env = os.environ | {"OMP_NUM_THREADS": str(peers.threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*command, *peers.options()], env=env, capture_output=True, text=True)
    if done.returncode:
        raise StepFailed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    with np.load(answers) as found:
        return found["lists"], json.loads(done.stdout.splitlines()[-1])


def _events(sequences: Sequences, folder: Path) -> Path:
    """The file that peers read: users and items by their numbers."""
    path = folder / "events.npz"
    if not path.exists():
        row = _rows(sequences)
        lengths = [len(items) for items in sequences.values()]
        targets = np.zeros(sum(lengths), dtype=bool)
        targets[np.cumsum(lengths) - 1] = True
        np.savez(
            path,
            users=np.repeat(np.arange(len(sequences)), lengths),
            items=np.array([row[item] for items in sequences.values() for item in items]),
            targets=targets,
        )
    return path


def _rows(sequences: Sequences) -> dict[str, int]:
    return {i: n for n, i in enumerate(sorted({i for items in sequences.values() for i in items}))}


def judged(lists: np.ndarray, sequences: Sequences) -> Evaluation:
    """A peer's lists, judged as ours are: the rank of each user's last item."""
    row = _rows(sequences)
    wanted = np.array([row[items[-1]] for items in sequences.values()])
    hit = lists == wanted[:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1), TOP)
    shown = np.isin(np.arange(len(row)), lists)
    return Evaluation(ranks, np.arange(len(wanted)), shown)


def compare(
    sequences: Sequences,
    attributes: Path | None,
    peers: Peers,
    names: list[str],
    folder: Path,
    *,
    at_once: bool = False,
) -> list[Figures]:
    """Ours, then each peer; or all `at_once`, each on threads of its own."""
    _events(sequences, folder)
    ask = partial(ask_peer, peers=peers, sequences=sequences, folder=folder)
    with ThreadPoolExecutor(max(len(names), 1)) as pool:
        begun = [pool.submit(ask, name) for name in names if at_once]
        ours = _ask_ours(sequences, attributes, peers)
        theirs = [each.result() for each in begun] or [ask(name) for name in names]
    told = ours.figures["epochs"], ours.figures["train_seconds"]
    by_user = dict(zip(ours.users, ours.found.ndcg, strict=True))
    own = np.array([by_user[user] for user in sequences])
    found = [_figures(OURS, ours.found, told, peers.seed)]
    for name, (lists, peer) in zip(names, theirs, strict=True):
        answered, told = judged(lists, sequences), (peer["passes"], peer["seconds"])
        behind = _behind(own, answered, peers.seed)
        found.append(_figures(name, answered, told, peers.seed, behind))
    return found


def _ask_ours(sequences: Sequences, attributes: Path | None, peers: Peers) -> Judged:
    return judge_leave_one_out(
        sequences,
        None if attributes is None else read_attributes(attributes),
        peers.recipe,
        max_minutes=peers.minutes,
        seed=peers.seed,
        name=OURS,
    )


def _figures(
    name: str,
    found: Evaluation,
    took: tuple[float, float],
    seed: int,
    behind: tuple[float, float, float] | None = None,
) -> Figures:
    metrics, (passes, seconds) = found.metrics(seed=seed), took
    return Figures(
        name,
        metrics["ndcg@10"],
        (metrics["ndcg@10_low"], metrics["ndcg@10_high"]),
        metrics["recall@10"],
        metrics["coverage@10"],
        int(passes),
        round(seconds, 1),
        behind,
    )


def _behind(ours: np.ndarray, theirs: Evaluation, seed: int) -> tuple[float, float, float]:
    """By how much our NDCG of each user is higher: the mean, and its interval."""
    ahead = ours - theirs.ndcg
    low, high = interval(ahead, theirs.users, seed=seed)
    return round(float(ahead.mean()), 6), round(low, 6), round(high, 6)


def main(
    sequences: Annotated[Path, typer.Option(help="`user item item …` a line; may be .xz.")],
    targets: Annotated[Path | None, typer.Option(help="Each line's last item, split off.")] = None,
    attributes: Annotated[Path | None, typer.Option(help="For our model: item content.")] = None,
    size: Annotated[str, typer.Option(help="small, base, large, or a YAML file.")] = "small",
    max_minutes: Annotated[float, typer.Option(help="Each training stops after this.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of each training.")] = 2,
    models: Annotated[str, typer.Option(help="Peers, by comma.")] = ",".join(NAMES),
    at_once: Annotated[
        bool, typer.Option("--at-once", help="All learn side by side: ask for a core for each.")
    ] = False,
    python: Annotated[Path, typer.Option(help="Of the peers' environment.")] = _PYTHON,
    as_json: JsonFlag = False,
) -> None:
    """Our model against RecTools' SASRec and HSTU, ALS, item-kNN and popularity, in one run.

    The peers need an environment of their own: `python -m venv .venv-peers`, then
    `.venv-peers/bin/pip install -r benchmarks/peers/requirements.txt`.
    Example: python -m benchmarks.models --sequences beauty.txt.xz --max-minutes 20
    """
    names = [name for name in models.split(",") if name]
    if unknown := set(names) - set(NAMES):
        raise BadInput(f"no peer {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    if names and not python.exists():
        raise BadInput(f"no {python}: make the peers' environment, as the module's head tells")
    os.environ["NEARLINE_TRAIN_THREADS"] = str(threads)
    read = read_split_sequences(sequences, targets) if targets else read_sequences(sequences)
    kept = {user: items for user, items in read.items() if len(items) > 1}
    peers = Peers(python, load_recipe(size), max_minutes, seed, threads)
    with workplace(None) as folder:
        found = compare(kept, attributes, peers, names, folder, at_once=at_once)
    if as_json:
        print_json({"machine": machine(), "models": [asdict(each) for each in found]})
        return
    rows = [
        [
            each.model,
            f"{each.ndcg:.4f} ({each.ndcg_interval[0]:.4f} to {each.ndcg_interval[1]:.4f})",
            f"{each.hit_rate:.4f}",
            f"{each.coverage:.2f}",
            f"{each.passes}",
            f"{each.seconds:.0f}",
            "" if each.behind is None else "{:+.4f} ({:+.4f} to {:+.4f})".format(*each.behind),
        ]
        for each in found
    ]
    heads = ["model", "NDCG@10", "HR@10", "coverage", "passes", "seconds", "ours ahead by"]
    print_table(sequences.name, heads, rows)


if __name__ == "__main__":
    run(main)
