"""What learning takes where the catalogue is large, by each way to learn it.

Twenty thousand users come back to some of the items (Zipf), each item says eight words and has
neighbours. Each way runs in a process of its own: the same steps of a training of size `small`,
with the average of the weights that a night keeps, then what a night watches after a pass. The
others are compared with the way `every item`.
"""

import statistics
import time
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from threading import Thread
from typing import Annotated

import numpy as np
import psutil
import torch
import typer

from benchmarks.harness import END, Watch, machine, run
from nearline.console import JsonFlag, err, print_json, print_table
from nearline.sequence import microseconds
from training.dataset import Batch, Interactions, arranged
from training.learning import reproducible
from training.model import Model, ModelConfig
from training.negatives import few_compared
from training.neighbours import neighbours
from training.recipe import parse_recipe
from training.teacher import Course, Teacher, batch_loss, constant, training_batches
from training.watching import mean_loss

WHOLE = "every item"
_DRAWN = "like: small\nlearning: {negatives: 8192}"
WAYS = {
    WHOLE: "like: small\nlearning: {negatives: 0}",
    "8,192 drawn": _DRAWN,
    "8,192 drawn, 8 codes an item": f"{_DRAWN}\nmodel: {{item_codes: 8}}",
}
_USERS, _EVENTS, _WORDS = 20_000, 40, 8
_WATCHED = 2000
_MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """A way to learn: seconds a step (the median), most memory beyond what lay there before.

    That is of steps and of what is watched. `weights_mib` is what the model keeps for the items
    themselves.
    """

    items: int
    way: str
    seconds: float
    peak_mib: float
    weights_mib: float


def sessions(items: int) -> Interactions:
    """Users who go on from one item to others near it, some of them far more often than others."""
    rng = np.random.default_rng(items)
    first = np.minimum(rng.zipf(1.3, _USERS * _EVENTS), 100 * items) * 7919
    found = (first + rng.integers(0, 50, len(first))) % items
    users = np.repeat(np.arange(_USERS), _EVENTS)
    names, ones = tuple(map(str, range(_USERS))), np.ones(len(found), np.int64)
    times = microseconds(END) + 60_000_000 * np.arange(len(found))
    return arranged(names, users, found + 1, ones, times, 0 * ones, ones.astype(bool))


def learn(items: int, way: str, steps: int) -> Figures:
    """Take some steps here, in this process."""
    data, recipe = sessions(items), parse_recipe(WAYS[way], name=way)
    learning, shape = recipe.learning, recipe.model.model_dump()
    targets = data.targets()
    words = np.random.default_rng(1).integers(1, shape["content_buckets"] + 1, (items, _WORDS))
    graph = neighbours(data, targets, items=items, most=learning.neighbours)
    watch = Watch(psutil.Process())
    watch.sample()
    before, watcher = watch.peak_mib, Thread(target=watch.run, daemon=True)
    watcher.start()
    with reproducible(17):
        config = ModelConfig(items=items, types=1, content_width=_WORDS, **shape)
        model = Model(config, torch.from_numpy(words))
        model.item_tower.link(graph)
        model.item_tower.touch(np.arange(items))
        loss = few_compared(batch_loss, model, data, targets, draws=learning.draws(items))
        rate, decay = learning.learning_rate, learning.weight_decay
        course = Course(Teacher(model, data, rate, decay, constant(1), loss))
        rng = np.random.default_rng(2)
        batches = training_batches(model, data, targets, learning.batch_tokens, rng)
        seconds = [_timed(course, batch) for batch in islice(batches, steps + 1)]
        mean_loss(course.mean, data, targets[:_WATCHED], learning)
    watch.stop()
    watcher.join()
    kept = sum(part.nbytes for part in model.item_tower.delta.state_dict().values())
    # The first step makes what the others find: the gradients, the optimizer's moments.
    middle = statistics.median(seconds[1:])
    return Figures(items, way, middle, watch.peak_mib - before, kept / _MIB)


def _timed(course: Course, batch: Batch) -> float:
    began = time.perf_counter()
    course.step(batch)
    return time.perf_counter() - began


def main(
    items: Annotated[str, typer.Option(help="Sizes of the catalogue, by comma.")] = "10000,100000",
    steps: Annotated[int, typer.Option(min=1, help="Of each way, after the first.")] = 8,
    as_json: JsonFlag = False,
) -> None:
    """What a step of learning takes, and how much memory, by the size of the catalogue and the way.

    Example: python -m benchmarks.catalogue --items 10000,100000,1000000
    """
    found = []
    for size in map(int, items.split(",")):
        for way in WAYS:
            err.print(f"{size:,} items: {way}", highlight=False)
            with get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(learn, (size, way, steps)))
    if as_json:
        print_json({"machine": machine(), "figures": [asdict(each) for each in found]})
        return
    whole = {each.items: each for each in found if each.way == WHOLE}
    rows = [
        [
            f"{each.items:,}",
            each.way,
            f"{each.seconds:.2f}",
            f"{each.seconds / whole[each.items].seconds:.2f}",
            f"{each.peak_mib:,.0f}",
            f"{each.peak_mib / whole[each.items].peak_mib:.2f}",
            f"{each.weights_mib:,.1f}",
        ]
        for each in found
    ]
    heads = ["items", "compared", "s a step", "of all", "MiB", "of all", "MiB of their own vectors"]
    print_table(machine(), heads, rows)


if __name__ == "__main__":
    run(main)
