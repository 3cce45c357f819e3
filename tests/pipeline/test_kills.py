"""An hour that is killed, anywhere: whoever runs it next ends as if nothing had happened."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.windows import Window
from pipeline.nights import Asked
from serving.release import LoadedRelease
from tests.pipeline import hours
from tests.pipeline.hours import Kill, Site, hour

pytestmark = pytest.mark.slow
REDIS = "redis://127.0.0.1:6379/12"
WRITE = {
    "sqlite": "feature_repo.online_store:NeverBackSqlite._write",
    "redis": "feature_repo.online_store:NeverBackRedis._write",
}
KILLS = {
    "before it learns": Kill("training.finetune:warm", "before"),
    "when it has learned": Kill("training.finetune:warm", "after"),
    "while files are staged": Kill("training.bundle:compress", "before"),
    "when it is judged": Kill("training.gate:judge", "after"),
    "before the release appears": Kill("os:replace", "before", about=".staged-"),
    "when the release has appeared": Kill("os:replace", "after", about=".staged-"),
    "before the push": Kill("pipeline.steps:push", "before"),
    "with half of the items online": Kill("STORE", "half", call=1),
    "with the items online": Kill("pipeline.online:_push", "after", about="item"),
    "with half of the users online": Kill("STORE", "half", call=2),
    "before the ledger tells of the users": Kill("nearline.ledger:Ledger.mark", "before", call=2),
    "in the middle of the ledger": Kill("nearline.ledger:Ledger._cut", "before", call=2),
    "before the push is known to be whole": Kill("pipeline.online:tell_pushed", "before", call=2),
    "after the push": Kill("pipeline.steps:push", "after"),
    "before the pointer moves": Kill("os:replace", "before", about=".active.json"),
    "when the pointer has moved": Kill("os:replace", "after", about=".active.json"),
    "before the last look at the vectors": Kill("pipeline.steps:push_active", "before"),
    "when a night is asked for": Kill("os:replace", "before", about=".night_asked.json"),
    "when it is known to be asked for": Kill("os:replace", "after", about=".night_asked.json"),
}
State = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A site whose night is live, to be copied; what its hour leads to when nothing happens."""

    site: Site
    online: dict[bytes, bytes]
    before: State
    after: State

    def copy(self, home: Path) -> Site:
        """The same site elsewhere; Redis has only one place."""
        shutil.copytree(self.site.home, home, dirs_exist_ok=True)
        if self.site.store == "redis":
            database = redis.Redis.from_url(REDIS)
            database.flushdb()
            for key, value in self.online.items():
                database.restore(key, 0, value)
        return Site(home, self.site.store, REDIS)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Base]:
    site, stored = Site(tmp_path_factory.mktemp("begun"), request.param, REDIS), {}
    if site.store == "redis":
        flush_or_skip()
    assert site.run(hours.build, 2) == 0
    if site.store == "redis":
        database = redis.Redis.from_url(REDIS)
        stored = {key: database.dump(key) for key in database.keys("*")}
    begun = Base(site, stored, state(site), {})
    ended = begun.copy(tmp_path_factory.mktemp("ended"))
    assert ended.run(hours.run_hour, hour(0)) == 0
    yield Base(site, stored, begun.before, state(ended))
    if site.store == "redis":
        flush_or_skip()


def flush_or_skip() -> None:
    try:
        redis.Redis.from_url(REDIS).flushdb()
    except redis.ConnectionError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Redis at {REDIS}")


def state(site: Site) -> State:
    """All that must agree: the pointer, the releases and their files, the vectors, the ledger, and
    the night that was asked for.
    """
    from nearline.pushed import pushed

    with site.entered():
        store, lake = ReleaseStore.open(), Lake.open()
        manifests = [manifest.model_dump() for manifest in store.manifests()]
        for manifest in manifests:
            store.load(manifest["version"]).verify()
            timeless(manifest)
        ledgers = {name: lake.ledger(f"online/{name}_embedding") for name in ("user", "item")}
        return {
            "pointer": store.pointer().model_dump(),
            "releases": manifests,
            "files": sorted(p.name for p in store.root.iterdir() if p.name != ".lock"),
            "vectors": hours.vectors(),
            "pushed": pushed(),
            "asked": Asked.last(),
            "wanted": hours.nights_wanted(),
            "ledger": {name: (ledger.covered(), ledger.rows()) for name, ledger in ledgers.items()},
        }


def timeless(manifest: State) -> None:
    """What took how long differs from run to run: take it out, and the checksum that covers it."""
    manifest["lineage"].pop("seconds")
    manifest["reasons"] = [re.sub(r"takes [\d.]+ ms", "", each) for each in manifest["reasons"]]
    manifest.pop("sha256")


def test_an_hour_that_is_left_alone_goes_live_whole(base: Base) -> None:
    night, live = base.before["releases"][0]["version"], base.after["releases"][1]["version"]
    assert base.after["pointer"] == {
        "active": live,
        "history": [night],
        "withdrawn": [],
        "before": {},
    }
    assert base.after["pushed"] == live
    assert (base.before["asked"], base.after["asked"]) == (
        None,
        Asked(night=night, end=hour(0).end),
    )
    assert base.after["wanted"] == {str(Window.trailing(hour(0).end, hours=24))}
    for vectors in base.after["vectors"].values():
        assert vectors
        assert {release for release, _ in vectors.values()} == {live}
    for vectors in base.before["vectors"].values():
        assert {release for release, _ in vectors.values()} == {night}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_killed_anywhere_the_next_run_ends_as_if_it_had_not_been(
    base: Base, kill: Kill, tmp_path: Path
) -> None:
    site = base.copy(tmp_path)
    what = WRITE[site.store] if kill.what == "STORE" else kill.what
    kill = Kill(what, kill.when, kill.call, kill.about)
    assert site.run(hours.run_hour, hour(0), trap=kill) == -signal.SIGKILL
    nothing_half_is_live(site, base)
    assert site.run(hours.run_hour, hour(0)) == 0
    assert state(site) == base.after


def nothing_half_is_live(site: Site, base: Base) -> None:
    """What serving may see at any moment: a whole release, and vectors that are what they say."""
    with site.entered():
        store = ReleaseStore.open()
        version = store.active()
        assert version is not None
        assert LoadedRelease.load(store.load(version)).version == version
        for manifest in store.manifests():
            store.load(manifest.version).verify()
        for kind, found in hours.vectors().items():
            known = [base.before["vectors"][kind], base.after["vectors"][kind]]
            for key, vector in found.items():
                assert vector in [each.get(key) for each in known]


def test_a_run_that_was_killed_is_made_up_for_by_the_next_hour(base: Base, tmp_path: Path) -> None:
    site = base.copy(tmp_path)
    kill = Kill("pipeline.steps:push", "after")
    assert site.run(hours.run_hour, hour(0), trap=kill) == -signal.SIGKILL
    assert site.run(hours.run_hour, hour(1)) == 0
    with site.entered():
        live = ReleaseStore.open().load(ReleaseStore.open().active() or "").manifest
    assert (live.window_start, live.window_end) == (hour(0).start, hour(1).end)
    found = state(site)
    assert found["pushed"] == live.version
    assert {release for release, _ in found["vectors"]["item"].values()} == {live.version}


def test_a_run_that_changes_nothing_puts_the_vectors_right(base: Base, tmp_path: Path) -> None:
    """The push was whole, the pointer did not move, and the gate refuses from then on."""
    site = base.copy(tmp_path)
    kill = Kill("pipeline.steps:push", "after")
    assert site.run(hours.run_hour, hour(0), trap=kill) == -signal.SIGKILL
    assert state(site)["vectors"] != base.before["vectors"]
    assert site.run(refused_hour) == 0
    found = state(site)
    assert (found["pointer"], found["pushed"]) == (base.before["pointer"], base.before["pushed"])
    assert found["vectors"]["item"] == base.before["vectors"]["item"]


def refused_hour() -> None:
    from pipeline import steps

    steps.passed = lambda version: False
    hours.run_hour(hour(0))
