"""A night learns a ranker, judges it on later events, and stores it with its verdict."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nearline import bundle as names
from nearline.errors import CorruptRelease
from nearline.lake import Lake
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.sequence import Vocabulary, microseconds
from nearline.settings import settings
from nearline.windows import HOUR, Window
from training import gate, lesson
from training.bundle import read_bundle
from training.dataset import Interactions, interactions
from training.finetune import finetune
from training.nightly import train_nightly
from training.ranking import night

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC)
NIGHT = Window(START, END - timedelta(days=1))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up stream is short, and few of its events are first touches: popularity wins."""
    monkeypatch.setattr(night, "ENOUGH", 10)
    monkeypatch.setattr(gate, "LEAST_USERS", 1000)
    monkeypatch.setattr(lesson, "WATCHED", 0.3)


def trained(window: Window) -> ReleaseManifest:
    return ReleaseStore.open().load(train_nightly(window)).manifest


def test_the_ranker_is_stored_with_its_verdict_and_carried_on(
    few: None, full_lake: Lake, known: Callable[..., None]
) -> None:
    known("item_popularity", START + HOUR, {"item_id": "i1", "events_1h": 1})
    for view in night.READ:
        full_lake.mark_complete(f"features/{view}", Window(START, END), rows=0)
    store, manifest = ReleaseStore.open(), trained(NIGHT)
    assert manifest.ranking is not None
    assert manifest.ranking.events > 10
    assert manifest.ranking.low is not None
    assert manifest.ranking.wins == (manifest.ranking.low > 0)
    release = store.load(manifest.version)
    ranker = read_bundle(release).ranker
    assert ranker is not None
    assert names.RANKER in manifest.files
    store.promote(manifest.version)
    child = store.load(finetune(Window(NIGHT.end, END), manifest.version) or "")
    assert child.manifest.ranking == manifest.ranking
    assert read_bundle(child).ranker == ranker
    (release.path / names.RANKER).unlink()
    with pytest.raises(CorruptRelease, match=r"ranker\.txt is missing"):
        release.verify()


def test_without_a_ranker_the_verdict_says_why(history: Any) -> None:
    data, watched, held_out = history
    school = night.RankerSchool(data, None, None)  # type: ignore[arg-type]
    failed = school.taught(None, watched, held_out)  # type: ignore[arg-type]
    assert failed == "no feature is registered"
    ranking, trees = school.judged(failed, None, held_out, None)  # type: ignore[arg-type]
    assert (ranking.wins, trees) == (False, None)
    assert ranking.reason == "no ranker: no feature is registered"


def test_whatever_fails_is_told_in_place_of_a_ranker(
    history: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, watched, held_out = history
    monkeypatch.setattr(night, "untaught", lambda *_: None)
    school = night.RankerSchool(data, None, None)  # type: ignore[arg-type]
    assert "could not be learned (AttributeError" in str(school.taught(None, watched, held_out))  # type: ignore[arg-type]


@pytest.fixture
def history(
    stream: tuple[pa.Table, pa.Table], few: None, lake: Lake
) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """Events, and halves of what may be learned from and judged by."""
    events, items = stream
    vocabulary = Vocabulary(tuple(items["item_id"].to_pylist()), ("play", "rating"))
    data = interactions(events, vocabulary, ["play"])
    middle = microseconds(START + timedelta(days=4))
    return data, data.targets(before=middle), data.targets(since=middle)


def test_without_registered_features_no_ranker_is_learned(history: Any) -> None:
    assert night.untaught(*history) == "no feature is registered"


def test_features_must_be_complete(history: Any, known: Callable[..., None], lake: Lake) -> None:
    assert "features/user_activity" in str(night.untaught(*history))
    for view in night.READ:
        lake.mark_complete(f"features/{view}", Window(START, END), rows=0)
    assert night.untaught(*history) is None


def test_a_handful_of_events_teaches_nothing(history: Any) -> None:
    data, watched, held_out = history
    assert "fewer than" in str(night.untaught(data, watched[:9], held_out))


def test_the_ranker_may_be_off(history: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_RANKER", "off")
    settings.cache_clear()
    assert night.untaught(*history) == "NEARLINE_RANKER is off"


def test_a_library_that_cannot_be_loaded_is_told(
    history: Any, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert "LightGBM cannot be loaded" in str(night.untaught(*history))
