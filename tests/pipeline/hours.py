"""A small site with a night that is live, whose hours are run, and killed, in real processes.

The processes are forked from one that has loaded Feast and torch: each starts at once. Each may be
killed at a place that a `Kill` names; the product knows nothing of it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from nearline.domains import load_domain
from nearline.lake import EVENTS, Lake, hour_groups
from nearline.releases import ReleaseStore
from nearline.schema import EVENT_SCHEMA, EVENT_TS, FEATURE_TS, ITEM_SCHEMA
from nearline.sequence import Vocabulary, microseconds
from nearline.settings import settings
from nearline.sources.dataset import conform, upsert_items
from nearline.windows import HOUR, Window

NIGHT = datetime(2026, 3, 1, 3, tzinfo=UTC)
"""The end of what the night has learned."""

HISTORY = Window.trailing(NIGHT, hours=48)
USERS, ITEMS, EVENTS_AN_HOUR = 12, 30, 6

_MEETING_S = 300.0

Vectors = dict[str, tuple[str, tuple[float, ...]]]
"""User or item → the release and the vector that are online."""

_SPAWN = get_context("forkserver")
_SPAWN.set_forkserver_preload(["tests.pipeline.hours_preload"])


def hour(n: int) -> Window:
    """The n-th hour after the night, from 0."""
    return Window(NIGHT + n * HOUR, NIGHT + (n + 1) * HOUR)


@dataclass(frozen=True)
class Kill:
    """Die at a call of `what` (`module:attribute`): before it, after it, or half-way through.

    At the `call`-th one whose first argument, as text, holds `about`. Half-way is for what takes
    rows of the online store: half of them are written.
    """

    what: str
    when: Literal["before", "half", "after"]
    call: int = 1
    about: str = ""

    def arm(self) -> None:
        """From now on this process dies there."""
        calls = 0

        def hook(real: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += self.about in str(arguments[0]) if arguments else 1
            if calls != self.call:
                return real(*arguments, **named)
            if self.when == "half":
                store, config, view, rows, *_ = arguments
                kept = [n % 2 == 0 for n in range(len(rows.keys))]
                real(store, config, view, rows.where(kept))
            if self.when == "after":
                real(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        intercept(self.what, hook)


@dataclass(frozen=True)
class Meeting:
    """Wait at the first call of `what` until `others` processes have come to theirs.

    Raises TimeoutError when they do not: one that ended before would be waited for without end.
    """

    what: str
    place: Path
    others: int = 1

    def arm(self) -> None:
        """From now on this process waits there, once."""

        def hook(real: Any, *arguments: Any, **named: Any) -> Any:
            (self.place / str(os.getpid())).touch()
            until = time.monotonic() + _MEETING_S
            while len(list(self.place.iterdir())) <= self.others:
                if time.monotonic() > until:
                    raise TimeoutError(f"nobody else came to {self.place}")
                time.sleep(0.01)
            return real(*arguments, **named)

        intercept(self.what, hook)


def intercept(what: str, hook: Callable[..., Any]) -> None:
    """Let `hook` stand where `what` (`module:attribute`) is; it gets the real one first."""
    module, _, path = what.partition(":")
    owner, (*way, name) = import_module(module), path.split(".")
    for step in way:
        owner = getattr(owner, step)
    real = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **named: hook(real, *arguments, **named))


@dataclass(frozen=True)
class Site:
    """An installation: its home and its online store."""

    home: Path
    store: str
    redis_url: str = ""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process works there."""
        from pipeline.online import feature_store

        before = dict(os.environ)
        os.environ |= {
            "NEARLINE_HOME": str(self.home),
            "NEARLINE_ONLINE_STORE": self.store,
            "NEARLINE_REDIS_URL": self.redis_url,
            "NEARLINE_TRAIN_THREADS": "1",
            "NEARLINE_RANKER": "off",
            "NEARLINE_DRIFT_HOURS": "1",
        }
        _forget(settings, feature_store)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            _forget(settings, feature_store)

    def start(self, act: Any, *arguments: Any, trap: Kill | Meeting | None = None) -> Any:
        """A process of its own that calls `act` there; it may be told where to die, or to wait."""
        process = _SPAWN.Process(target=_act, args=(self, trap, act, arguments))
        process.start()
        return process

    def run(self, act: Any, *arguments: Any, trap: Kill | None = None) -> int:
        """The same, waited for; returns the exit code, negative for a signal."""
        process = self.start(act, *arguments, trap=trap)
        process.join()
        return int(process.exitcode)


def _forget(*caches: Any) -> None:
    for each in caches:
        each.cache_clear()


def _act(site: Site, trap: Kill | Meeting | None, act: Any, arguments: tuple[Any, ...]) -> None:
    with site.entered():
        if trap is not None:
            trap.arm()
        act(*arguments)


def run_hour(window: Window) -> None:
    """What the tasks of `nearline_hourly` do, one after the other."""
    from pipeline import steps

    steps.nearline(window)
    steps.push_active()
    day = steps.night_wanted(window, None)
    if day is not None:
        with wanted_file().open("a") as told:  # the scheduler starts `train_nightly`
            told.write(f"{day}\n")
        steps.night_asked(day.end.isoformat())


def nights_wanted() -> set[str]:
    """The days that a night was asked for, however often."""
    return set(wanted_file().read_text().splitlines()) if wanted_file().is_file() else set()


def wanted_file() -> Path:
    """What the scheduler was told of the asset `night_wanted`."""
    return settings().home / "night_wanted.txt"


def run_night(window: Window) -> None:
    """What the tasks of `train_nightly` do, one after the other, on the history alone."""
    from pipeline import steps

    version = steps.train(window)
    assert steps.passed(version)
    steps.push(version)
    steps.promote(version)
    again = steps.overtaken(version)
    if again is not None:  # the scheduler starts `nearline_hourly`
        run_hour(again)


def build(hours: int) -> None:
    """A catalogue, events and sequences of the history and `hours` hours more, and the night."""
    from pipeline import steps

    rng, lake = np.random.default_rng(5), Lake.open()
    items = {"item_id": [f"i{n:02}" for n in range(ITEMS)]}
    items |= {"title": [f"kind {n % 5}" for n in range(ITEMS)], "created_ts": HISTORY.start}
    upsert_items(lake, conform(pd.DataFrame(items), ITEM_SCHEMA))
    append_events(lake, rng, Window(HISTORY.start, NIGHT + hours * HOUR))
    night = publish_night(HISTORY)
    steps.push(night)
    steps.promote(night)


def append_events(lake: Lake, rng: np.random.Generator, window: Window) -> None:
    """Some events in every hour of `window`, and the sequences that follow from them."""
    count = EVENTS_AN_HOUR * len(list(window.hours()))
    seconds = np.arange(count) * 3600 / EVENTS_AN_HOUR + rng.integers(0, 600, count)
    table = pd.DataFrame(
        {
            "event_id": [f"{window.start:%d%H}-{n:05}" for n in range(count)],
            "user_id": [f"u{n:02}" for n in rng.integers(0, USERS, count)],
            "item_id": [f"i{n:02}" for n in rng.integers(0, ITEMS, count)],
            "event_type": "play",
            EVENT_TS: window.start + pd.to_timedelta(seconds, unit="s"),
            "value": 1.0,
        }
    )
    for start, rows in hour_groups(conform(table, EVENT_SCHEMA), EVENT_TS):
        lake.write_hour(EVENTS, start, rows, sort_by=[EVENT_TS, "event_id"])
        told = table[table[EVENT_TS] < start + HOUR]
        lake.write_hour("features/user_sequence", start, _sequences(told, start))
    for dataset in (EVENTS, "features/user_sequence"):
        lake.mark_complete(dataset, window, rows=count)


def _sequences(told: pd.DataFrame, start: datetime) -> pa.Table:
    """The history of each user of the hour that begins at `start`, up to its end."""
    present = told[told[EVENT_TS] >= start]["user_id"].unique()
    rows = [
        {
            "user_id": user,
            "item_ids": mine["item_id"].tolist(),
            "event_types": mine["event_type"].tolist(),
            "event_ts": [microseconds(ts.to_pydatetime()) for ts in mine[EVENT_TS]],
            "values": mine["value"].tolist(),
            FEATURE_TS: start + HOUR,
        }
        for user, mine in told[told["user_id"].isin(present)].groupby("user_id")
    ]
    return pa.Table.from_pylist(rows)


def publish_night(window: Window, *, seed: int = 1) -> str:
    """A nightly release that has learned nothing, which takes no time."""
    import torch

    from training.bundle import Bundle
    from training.dataset import read_catalogue
    from training.nightly import new_model
    from training.publishing import Clock, learned_last, publish
    from training.recipe import load_recipe

    recipe, domain = load_recipe("small"), load_domain("entertainment")
    tiny = {"dim": 16, "length": 10, "content_buckets": 64}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=tiny)})
    catalogue = read_catalogue(Lake.open(), before=window.end)
    vocabulary = Vocabulary(tuple(catalogue["item_id"].to_pylist()), tuple(domain.telling))
    torch.manual_seed(seed)
    model = new_model(recipe, vocabulary, catalogue)
    popularity = np.ones(len(vocabulary.item_ids), dtype=np.float32)
    version = publish(
        Bundle(model, vocabulary, popularity, "small", recipe.learning),
        window,
        kind="nightly",
        last_hour=learned_last(Lake.open(), window),
        checks=[],
        metrics={},
        baselines={},
        counts={},
        clock=Clock(),
    )
    assert ReleaseStore.open().load(version).manifest.promoted
    return version


def vectors() -> dict[str, Vectors]:
    """All that was pushed and is online, of users and of items."""
    users, items = [f"u{n:02}" for n in range(USERS)], [f"i{n:02}" for n in range(ITEMS)]
    return {"user": _online("user", users), "item": _online("item", items)}


def _online(entity: str, ids: list[str]) -> Vectors:
    from pipeline.online import feature_store

    names = [f"{entity}_embedding:{name}" for name in ("release", "embedding")]
    rows = [{f"{entity}_id": key} for key in ids]
    told = feature_store().get_online_features(features=names, entity_rows=rows).to_dict()
    found = zip(ids, told["release"], told["embedding"], strict=True)
    return {key: (release, tuple(vector)) for key, release, vector in found if release}
