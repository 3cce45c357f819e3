"""What a model loses and saves when it is compressed: files, time to encode a user, NDCG.

One size is trained on a file of sequences and judged leave-one-out, with its encoder as it was
learned and in int8, and with its items in fewer bits. Then the encoder of every size, as it comes
out of a training or not, encodes one user after another on one core; beside it stands the model as
a trace gives it, which makes a state of every event.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import faiss
import numpy as np
import torch
import torch.nn as nn
import typer
from torch import Tensor

from benchmarks.harness import machine, run, workplace
from nearline import bundle as names
from nearline.console import JsonFlag, print_json, print_table
from nearline.encoder import UserEncoder
from nearline.sequence import PAD, ModelInput
from training.bundle import write_encoders
from training.dataset import Interactions
from training.evaluation import Scorer, evaluate
from training.model import Model
from training.network import export
from training.protocols import Judged, judge_leave_one_out, leave_one_out, new_model
from training.recipe import load_recipe
from training.replay.states import encode_states
from training.sequences import read_attributes, read_sequences

ENCODERS = {"float32": names.ENCODER, "int8": names.ENCODER_COMPRESSED}
TRACED = "traced.onnx"
SIZES = ("small", "base", "large")
LENGTHS = (20, 50, 200)
_MIB, _KIB = 1 << 20, 1 << 10
_ASKED, _WARM_UP = 500, 20


class Traced(nn.Module):
    """The whole user encoder, and of its states (B, L, D) the last of each user, (B, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, items: Tensor, types: Tensor, *told: Tensor) -> Tensor:
        states: Tensor = self.encoder(items, types, *told)
        last = ((types != PAD).sum(dim=1) - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return states.gather(1, last).squeeze(1)


@dataclass(frozen=True)
class Items:
    """A way to hold the items: what it makes of the matrix, and its bytes for one of `dim`."""

    name: str
    factory: Callable[[int], str] | None
    bytes_each: Callable[[int], float]

    def of(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix as it comes out again, float32 (items, dim)."""
        if self.factory is None:
            return matrix
        dim = matrix.shape[1]
        coder = faiss.index_factory(dim, self.factory(dim), faiss.METRIC_INNER_PRODUCT)
        coder.train(matrix)
        coder.add(matrix)
        found: np.ndarray = coder.reconstruct_n(0, len(matrix))
        return found


WAYS = (
    Items("float32", None, lambda dim: 4 * dim),
    Items("int8", lambda dim: "SQ8", lambda dim: dim),
    Items("4 bits", lambda dim: "SQ4", lambda dim: dim / 2),
    Items("PQ, a byte for 4", lambda dim: f"PQ{dim // 4}", lambda dim: dim / 4),
    Items("PQ, a byte for 8", lambda dim: f"PQ{dim // 8}", lambda dim: dim / 8),
)


@dataclass(frozen=True)
class Step:
    """A compressed model, and how it foresees; `kept` is its NDCG against the whole one's."""

    encoder: str
    items: str
    item_mib: float
    ndcg: float
    hit_rate: float
    kept: float


@dataclass(frozen=True)
class Speed:
    """An encoder file, and how long one user of so many events takes on one core."""

    size: str
    encoder: str
    kib: float
    length: int
    p50_ms: float
    p99_ms: float


def steps(judged: Judged, folder: Path) -> Iterator[Step]:
    """The encoder in int8, then the items in fewer and fewer bits."""
    model, data = judged.model, judged.data
    write_encoders(folder, model)
    matrix = np.array(names.read_matrix(folder))
    encoders = {name: UserEncoder.open(folder, file) for name, file in ENCODERS.items()}
    test, whole = leave_one_out(data).test, 0.0
    for name, way in [("float32", WAYS[0]), *(("int8", way) for way in WAYS)]:
        score = scorer(encoders[name], way.of(matrix), data, model.config.length)
        found = evaluate(score, data, test, items=len(matrix)).metrics(seed=1)
        whole = whole or found["ndcg@10"]
        mib = len(matrix) * way.bytes_each(matrix.shape[1]) / _MIB
        kept = found["ndcg@10"] / whole
        yield Step(name, way.name, mib, found["ndcg@10"], found["recall@10"], kept)


def scorer(encode: UserEncoder, matrix: np.ndarray, data: Interactions, length: int) -> Scorer:
    """Users as an encoder file makes them, items as `matrix` has them."""

    def score(targets: np.ndarray) -> np.ndarray:
        states, moments = data.states[targets], data.times[targets]
        found: np.ndarray = encode_states(encode, data, states, moments, length=length) @ matrix.T
        return found

    return score


def speeds(size: str, folder: Path) -> Iterator[Speed]:
    """How fast the encoders of a size are; nothing needs to be learned for that."""
    shape = load_recipe(size).model
    model: Model = new_model(shape, np.ones((1000, 1), dtype=np.int64)).eval()
    write_encoders(folder, model)
    export(Traced(model.user_encoder), folder / TRACED, dim=shape.dim)
    for name, file in {"the model, traced": TRACED, **ENCODERS}.items():
        encode, kib = UserEncoder.open(folder, file), (folder / file).stat().st_size / _KIB
        for length in LENGTHS:
            if length <= shape.length:
                yield Speed(size, name, kib, length, *_milliseconds(encode, length))


def _milliseconds(encode: UserEncoder, length: int) -> tuple[float, float]:
    rng, took = np.random.default_rng(length), []
    for _ in range(_WARM_UP + _ASKED):
        ones = np.ones((1, length), dtype=np.int64)
        inputs = ModelInput(rng.integers(1, 1001, (1, length)), ones, ones, ones, ones)
        began = time.perf_counter()
        encode(inputs)
        took.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(took[_WARM_UP:], [50, 99])
    return float(p50), float(p99)


def main(
    sequences: Annotated[Path, typer.Option(help="`user item item …` a line; may be .xz.")],
    attributes: Annotated[Path | None, typer.Option(help="Content of the items.")] = None,
    size: Annotated[str, typer.Option(help="What is trained: small, base or large.")] = "small",
    max_minutes: Annotated[float, typer.Option(help="The training stops after this.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """What compression costs in NDCG, and saves in bytes and milliseconds.

    Example: python -m benchmarks.compression --sequences beauty.txt.xz
    """
    os.environ.setdefault("NEARLINE_TRACK", "none")
    judged = judge_leave_one_out(
        read_sequences(sequences),
        None if attributes is None else read_attributes(attributes),
        load_recipe(size),
        max_minutes=max_minutes,
        seed=seed,
        name=sequences.name,
    )
    torch.set_num_threads(1)
    with workplace(None) as folder:
        lost = list(steps(judged, folder))
        fast = [speed for each in SIZES for speed in speeds(each, folder)]
    if as_json:
        told = {"steps": [asdict(e) for e in lost], "encoders": [asdict(e) for e in fast]}
        print_json({"machine": machine(), **told})
        return
    rows = [
        [
            s.encoder,
            s.items,
            f"{s.item_mib:.2f}",
            f"{s.ndcg:.4f}",
            f"{s.hit_rate:.4f}",
            f"{s.kept:.3f}",
        ]
        for s in lost
    ]
    heads = ["encoder", "items", "MiB of items", "NDCG@10", "HR@10", "of the whole"]
    print_table(f"{size} on {sequences.name}", heads, rows)
    rows = [
        [e.size, e.encoder, f"{e.kib:.0f}", f"{e.length}", f"{e.p50_ms:.2f}", f"{e.p99_ms:.2f}"]
        for e in fast
    ]
    heads = ["size", "encoder", "KiB", "events", "p50 ms", "p99 ms"]
    print_table("one user on one core", heads, rows)


if __name__ == "__main__":
    run(main)
