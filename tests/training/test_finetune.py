from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nearline import bundle as names
from nearline.errors import CorruptRelease, MissingPartition, ReleaseRefused, UnknownRelease
from nearline.lake import CATALOGUE, EVENTS, Lake
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA
from nearline.sequence import Vocabulary
from nearline.settings import settings
from nearline.sources.dataset import conform, upsert_items
from nearline.windows import DAY, HOUR, Window
from training import finetune as module
from training.bundle import read_bundle
from training.dataset import interactions, read_events
from training.finetune import finetune, split_hours, with_history
from training.nightly import train_nightly
from training.recipe import load_recipe

from .conftest import SPEC

NIGHT = datetime(2026, 1, 8, tzinfo=UTC)
EVENING = Window(NIGHT + 12 * HOUR, NIGHT + 22 * HOUR)


@pytest.fixture
def with_new_item(trained: str) -> Iterator[str]:
    """`a-new-item`, which sorts before all others, comes into the catalogue."""
    lake = Lake.open()
    before = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)
    row = {"item_id": ["a-new-item"], "title": ["Item 7 of kind 3"], "created_ts": [NIGHT]}
    upsert_items(lake, conform(pd.DataFrame(row), ITEM_SCHEMA))
    yield trained
    lake.write_snapshot(CATALOGUE, before, sort_by=["item_id"])


def test_a_fine_tune_is_a_child_that_names_its_line(trained: str) -> None:
    version = finetune(EVENING, trained)
    assert version is not None
    store = ReleaseStore.open()
    release = store.load(version)
    release.verify()
    manifest = release.manifest
    assert (manifest.kind, manifest.parent, manifest.base) == ("hourly", trained, trained)
    assert manifest.window == EVENING
    assert manifest.metrics["parent_targets"] > 0
    told = {"parent_ndcg@10", "retention_ndcg@10", "retention_parent_ndcg@10"}
    assert told <= set(manifest.metrics)
    assert all(name.startswith(("parent_", "retention_")) for name in manifest.metrics)
    assert 0 < manifest.lineage["steps"] <= 60
    assert manifest.drift is not None
    assert manifest.drift.hours == 22
    assert manifest.drift.users > 20
    assert 0 <= manifest.drift.changed < 0.5
    assert any("its parent on earlier events" in reason for reason in manifest.reasons)
    assert any("its lists show" in reason for reason in manifest.reasons)
    assert set(manifest.files) == set(store.load(trained).manifest.files)
    old, new = (names.read_matrix(store.load(v).path) for v in (trained, version))
    kept = new[: len(old)]
    assert not np.array_equal(old, kept)
    assert (old * kept).sum(axis=1).min() > 0.5
    assert store.active() is None


@pytest.mark.parametrize(("events", "days"), [(10**9, 30), (1000, 10), (150, 2), (1, 1)])
def test_a_busy_site_is_read_for_fewer_days(
    events: int, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "replay_events", events)
    asked: list[Window] = []

    def a_hundred_a_day(day: Window) -> int:
        asked.append(day)
        return 100

    assert with_history(EVENING, a_hundred_a_day) == Window(EVENING.start - days * DAY, EVENING.end)
    assert asked == [
        Window(EVENING.start - (n + 1) * DAY, EVENING.start - n * DAY) for n in range(days)
    ]


def test_the_same_hours_give_the_same_version(trained: str) -> None:
    assert finetune(EVENING, trained) == finetune(EVENING, trained)


def test_a_child_has_children_of_the_same_line(trained: str) -> None:
    first = finetune(Window(NIGHT, NIGHT + 12 * HOUR), trained)
    assert first is not None
    second = finetune(EVENING, first)
    assert second is not None
    manifest = ReleaseStore.open().load(second).manifest
    assert (manifest.parent, manifest.base) == (first, trained)
    assert manifest.drift is not None
    assert (manifest.drift.hours, manifest.drift.past) == (22, False)


def test_a_night_that_is_damaged_does_not_keep_the_hour_from_learning(trained: str) -> None:
    first = finetune(Window(NIGHT, NIGHT + 12 * HOUR), trained)
    assert first is not None
    weights = ReleaseStore.open().load(trained).path / names.WEIGHTS
    whole = weights.read_bytes()
    try:
        weights.write_bytes(b"")
        second = finetune(Window(NIGHT + 12 * HOUR, NIGHT + 21 * HOUR), first)
    finally:
        weights.write_bytes(whole)
    assert second is not None
    assert ReleaseStore.open().load(second).manifest.drift is None


def test_new_items_get_rows_after_the_old_ones(with_new_item: str) -> None:
    store = ReleaseStore.open()
    version = finetune(EVENING, with_new_item)
    assert version is not None
    old, new = (names.read_vocabulary(store.load(v).path) for v in (with_new_item, version))
    assert new.item_ids[: len(old.item_ids)] == old.item_ids
    assert new.item_ids[len(old.item_ids)] == "a-new-item"
    matrix = names.read_matrix(store.load(version).path)
    assert len(matrix) == len(new.item_ids)
    assert len(np.load(store.load(version).path / names.POPULARITY)) == len(new.item_ids)
    like = Lake.open().read_snapshot(CATALOGUE, schema=ITEM_SCHEMA).to_pandas()
    kinds = like.set_index("item_id")["title"].str.extract(r"kind (\d+)", expand=False)
    same = [row for row, item in enumerate(old.item_ids) if kinds[item] == "3"]
    other = [row for row, item in enumerate(old.item_ids) if kinds[item] != "3"]
    cosine = matrix[: len(old.item_ids)] @ matrix[len(old.item_ids)]
    assert cosine[same].mean() > cosine[other].mean()


@pytest.fixture
def poisoned(trained: str) -> Iterator[Window]:
    """An hour in which 300 users that nobody knows touch a dozen items each, drawn blindly."""
    lake, rng, hour = Lake.open(), np.random.default_rng(1), NIGHT + 24 * HOUR
    ids = lake.read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)["item_id"].to_pylist()
    count = 300 * 12
    rows = {
        "event_id": [f"junk-{n}" for n in range(count)],
        "user_id": [f"bot-{n % 300}" for n in range(count)],
        "item_id": rng.choice(ids, count),
        "event_type": "play",
        "event_ts": hour + pd.to_timedelta(np.sort(rng.integers(0, 3599, count)), unit="s"),
    }
    lake.write_hour(EVENTS, hour, conform(pd.DataFrame(rows), EVENT_SCHEMA), sort_by=["event_ts"])
    lake.mark_complete(EVENTS, Window.of_hour(hour), rows=count)
    yield Window.of_hour(hour)
    lake.write_hour(EVENTS, hour, EVENT_SCHEMA.empty_table())


def test_a_poisoned_hour_is_refused_or_does_no_harm(
    trained: str, poisoned: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(rate: float) -> tuple[float, ReleaseManifest]:
        """What is left of the parent's foresight after a fine-tune at a rate."""
        bundle = read_bundle(ReleaseStore.open().load(trained))
        eager = bundle.learning.model_copy(update={"warm_learning_rate": rate})
        monkeypatch.setattr(module, "read_bundle", lambda _: replace(bundle, learning=eager))
        version = finetune(poisoned, trained)
        assert version is not None
        found = ReleaseStore.open().load(version).manifest
        return found.metrics["retention_ndcg@10"] / found.metrics["retention_parent_ndcg@10"], found

    careful, manifest = kept(load_recipe("small").learning.warm_learning_rate)
    assert (careful, manifest.promoted) == (pytest.approx(1, abs=0.1), True)
    eager, manifest = kept(1.0)
    assert (eager < 0.8, manifest.promoted) == (True, False)
    assert "worse than its parent on earlier events" in manifest.reasons[0]
    with pytest.raises(ReleaseRefused):
        ReleaseStore.open().promote(manifest.version)


def test_what_a_line_forgot_hour_by_hour_is_told_by_its_night(
    trained: str, poisoned: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(ReleaseStore.open().load(trained))
    eager = bundle.learning.model_copy(update={"warm_learning_rate": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_bundle", lambda _: replace(bundle, learning=eager))
        spoiled = finetune(poisoned, trained)
    assert spoiled is not None
    version = finetune(poisoned, spoiled)
    assert version is not None
    found = ReleaseStore.open().load(version).manifest
    assert not found.promoted
    assert f"more than 10% worse than its night {trained} on earlier events" in found.reasons[0]
    assert any("not more than 10% worse beyond noise than its parent" in r for r in found.reasons)


def test_what_measures_forgetting_is_drawn_from_all_days_and_stays(full_lake: Lake) -> None:
    whole = Window(SPEC.start, SPEC.end)
    items = Lake.open().read_snapshot(CATALOGUE, schema=ITEM_SCHEMA)["item_id"].to_pylist()
    vocabulary = Vocabulary(tuple(items), ("play",))
    data = interactions(read_events(Lake.open(), whole), vocabulary, ["play"])
    found = [split_hours(data, Window(NIGHT + n * HOUR, whole.end), 0) for n in (0, 12)]
    for hours in found:
        assert not set(hours.old) & set(hours.kept_back)
        share = len(hours.kept_back) / (len(hours.old) + len(hours.kept_back))
        assert share == pytest.approx(module.KEPT_BACK, abs=0.01)
        assert len(np.unique(data.times[hours.kept_back] // (24 * 3_600_000_000))) >= 6
    first, second = (set(hours.kept_back) for hours in found)
    assert len(first & second) > 0.9 * len(first)


def test_an_hour_without_events_makes_no_release(trained: str) -> None:
    lake, before = Lake.open(), len(ReleaseStore.open().manifests())
    quiet = Window(NIGHT + 24 * HOUR, NIGHT + 25 * HOUR)
    lake.mark_complete(EVENTS, quiet, rows=0)
    assert finetune(quiet, trained) is None
    assert len(ReleaseStore.open().manifests()) == before


def test_hours_that_were_never_computed_are_told(trained: str) -> None:
    with pytest.raises(MissingPartition, match="not complete"):
        finetune(Window(NIGHT, NIGHT + 90 * HOUR), trained)


def test_an_unknown_parent_is_named(trained: str) -> None:
    with pytest.raises(UnknownRelease, match="no release 'nothing'"):
        finetune(EVENING, "nothing")


def test_a_damaged_parent_is_named(trained: str) -> None:
    version = finetune(Window(NIGHT, NIGHT + 3 * HOUR), trained)
    assert version is not None
    (ReleaseStore.open().root / version / names.WEIGHTS).write_bytes(b"")
    with pytest.raises(CorruptRelease, match=r"weights\.pt was changed"):
        finetune(EVENING, version)


def test_an_hour_goes_on_from_a_night_of_a_size_of_ones_own(
    full_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "like: small\nmodel: {item_codes: 8}\nlearning: {negatives: 10, epochs: 2, patience: 2}"
    )
    monkeypatch.setattr(settings(), "model_size", str(own))
    night = train_nightly(Window(SPEC.start, NIGHT))
    hour = finetune(EVENING, night)
    assert hour is not None
    old, new = (read_bundle(ReleaseStore.open().load(version)) for version in (night, hour))
    assert new.learning.negatives == 10
    assert new.size == "own.yaml", "the same bytes wherever the file lies"
    codes = [bundle.model.item_tower.delta.state_dict()["codes"] for bundle in (old, new)]
    known = len(old.vocabulary.item_ids)
    assert codes[0].shape == (known, 8)
    assert len(codes[1]) == len(new.vocabulary.item_ids) > known
    learned = old.model.item_tower.touched
    assert (codes[0][learned] == codes[1][:known][learned]).all(), "they stay until the next night"
    assert not torch.equal(old.model.item_matrix(), new.model.item_matrix()[:known])
