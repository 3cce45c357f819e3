"""Models of RecTools and implicit, taught and asked by these libraries, for benchmarks/models.py.

Runs in the environment of requirements.txt beside it, and knows the rest by files alone: the events
have `users`, `items` and `targets`, one for each: numbers, users in order and each user's events in
theirs, and whether an event is the one to foresee. The answers are `lists`, int64 (users, 10), -1
where there are fewer.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import (
    HSTUModel,
    ImplicitALSWrapperModel,
    ImplicitItemKNNWrapperModel,
    PopularModel,
    SASRecModel,
)
from rectools.models.base import ModelBase
from rectools.models.nn.transformers.utils import leave_one_out_mask

TOP = 10
WATCHED_USERS = 2_000
DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
"""How the trainer calls what Nearline's settings name."""

HSTU = {"relative_time_attention": False, "lightning_module_kwargs": {"logits_t": 0.05}}
"""What is HSTU's own: the files have no times; and it compares by cosine, over the temperature that
the library's tutorial has for it. With the library's default, 1, the softmax is nearly even."""


def on_gpu(device: str) -> bool:
    """Whether a model learns and answers on a GPU."""
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def transformer(
    kind: type, asked: argparse.Namespace, folder: str, users: int
) -> tuple[ModelBase, Callable[[ModelBase], int]]:
    """A transformer of the library that stops by its own validation loss, and what ends it."""

    def trainer() -> Trainer:
        best = ModelCheckpoint(folder, monitor="val_loss", mode="min", save_weights_only=True)
        return Trainer(
            accelerator=DEVICES[asked.device],
            max_epochs=1000,
            max_time={"seconds": round(60 * asked.max_minutes)},
            callbacks=[EarlyStopping("val_loss", mode="min", patience=asked.patience), best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = kind(
        n_factors=asked.dim,
        n_blocks=asked.layers,
        n_heads=asked.heads,
        session_max_len=asked.length,
        dropout_rate=asked.dropout,
        lr=asked.learning_rate,
        loss="sampled_softmax",
        n_negatives=asked.negatives,
        get_val_mask_func=leave_one_out_mask,
        get_val_mask_func_kwargs={"val_users": min(WATCHED_USERS, users)},
        get_trainer_func=trainer,
        recommend_torch_device="cuda" if on_gpu(asked.device) else "cpu",
        **(HSTU if kind is HSTUModel else {}),
    )

    def finish(fitted: ModelBase) -> int:
        trained = fitted.fit_trainer
        fitted.load_weights_from_checkpoint(trained.checkpoint_callback.best_model_path)
        return int(trained.current_epoch)

    return model, finish


def made(
    name: str, asked: argparse.Namespace, folder: str, users: int
) -> tuple[ModelBase, Callable[[ModelBase], int]]:
    """A model by its name, and what ends its training: returns the passes made."""
    if name in ("sasrec", "hstu"):
        kind = {"sasrec": SASRecModel, "hstu": HSTUModel}[name]
        return transformer(kind, asked, folder, users)
    plain: dict[str, Callable[[], ModelBase]] = {
        "als": lambda: ImplicitALSWrapperModel(
            AlternatingLeastSquares(factors=asked.dim, random_state=asked.seed)
        ),
        "knn": lambda: ImplicitItemKNNWrapperModel(CosineRecommender(K=100)),
        "popular": PopularModel,
    }
    return plain[name](), lambda _: 0


def main() -> None:
    """Teach each model the events before the targets, and ask it for every user."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("events", type=Path)
    parser.add_argument("answers", type=Path)
    for option in ("seed", "threads", "dim", "layers", "heads", "length", "negatives", "patience"):
        parser.add_argument(f"--{option}", type=int, required=True)
    parser.add_argument("--device", choices=DEVICES, required=True)
    for option in ("max-minutes", "dropout", "learning-rate"):
        parser.add_argument(f"--{option}", type=float, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    seed_everything(asked.seed)
    with np.load(asked.events) as found:
        users, items, targets = found["users"], found["items"], found["targets"]
    events = pd.DataFrame(
        {
            Columns.User: users[~targets],
            Columns.Item: items[~targets],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01")
            + pd.to_timedelta(np.flatnonzero(~targets), unit="s"),
        }
    )
    dataset, answered = Dataset.construct(events), np.unique(users)
    with TemporaryDirectory() as folder:
        model, finish = made(asked.name, asked, folder, len(answered))
        began = time.monotonic()
        model.fit(dataset)
        seconds = time.monotonic() - began
        passes = finish(model)
    found = model.recommend(answered, dataset, k=TOP, filter_viewed=True)
    lists = np.full((len(answered), TOP), -1, dtype=np.int64)
    rows = np.searchsorted(answered, found[Columns.User].to_numpy())
    lists[rows, found[Columns.Rank].to_numpy() - 1] = found[Columns.Item].to_numpy()
    np.savez(asked.answers, lists=lists)
    print(json.dumps({"seconds": seconds, "passes": passes}))


if __name__ == "__main__":
    main()
