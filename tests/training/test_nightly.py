import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from nearline import bundle as names
from nearline.domains import load_domain
from nearline.errors import BadInput, MissingPartition
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.schema import EVENT_SCHEMA, ITEM_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import conform
from nearline.windows import HOUR, Window
from training import gate, lesson, nightly
from training.dataset import Interactions
from training.finetune import finetune
from training.learning import Fitted, fit
from training.lesson import Lesson, NightTime
from training.model import Model
from training.nightly import train_nightly
from training.recipe import load_recipe

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC)
WINDOW = Window(START, END)
DAY_THREE = Window(START, START.replace(day=4))
DAY = Window(START, START.replace(day=2))
Events = Callable[[str], pa.Table]


def test_a_night_publishes_a_whole_release_and_moves_no_pointer(full_lake: Lake) -> None:
    version = train_nightly(WINDOW)
    store = ReleaseStore.open()
    release = store.load(version)
    release.verify()
    manifest = release.manifest
    assert store.active() is None
    assert (manifest.kind, manifest.parent, manifest.base) == ("nightly", None, version)
    assert manifest.window == WINDOW
    assert set(manifest.baselines) == {
        "popular",
        "popular_1d",
        "popular_7d",
        "popular_30d",
        "item_to_item",
        "content",
    }
    assert set(manifest.files) == {
        "item_ids.json",
        "event_types.json",
        "item_matrix.npy",
        "item_norms.npy",
        "word_vectors.npy",
        "lenders.npz",
        "alike.npy",
        "alike_shares.npy",
        "encoder.onnx",
        "encoder.int8.onnx",
        "popularity.npy",
        "config.json",
        "weights.pt",
        "answers.npy",
    }
    assert manifest.metrics["targets"] > 20
    assert manifest.lineage["cut_short"] == 0
    assert {"novelty@10", "popularity@10", "diversity@10", "recall@20"} <= set(manifest.metrics)
    told = {"ndcg@20_low", "mrr@10 of popular items_high", "novelty@10 of popular items_low"}
    assert told <= set(manifest.metrics)
    assert 0 < manifest.metrics["coverage@10 of popular items"] <= manifest.metrics["coverage@10"]
    assert manifest.metrics["targets of cold items"] < manifest.metrics["targets"]
    assert set(manifest.baselines["popular"]) == set(manifest.metrics)
    assert len(manifest.reasons) == 7
    assert manifest.lineage["feature_service"] == "serving_v1"
    assert json.loads((release.path / names.CONFIG).read_text())["length"] == 50
    assert np.load(release.path / names.POPULARITY).sum() > 0


def test_the_same_night_gives_the_same_version_its_index_included(
    full_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_EXACT_ITEMS", "20")
    settings.cache_clear()
    assert train_nightly(DAY_THREE) == train_nightly(DAY_THREE)
    (manifest,) = ReleaseStore.open().manifests()
    assert names.ITEM_INDEX in manifest.files
    index = manifest.lineage["index"]
    assert 1 <= index["probes"] <= index["lists"]
    assert index["recall@100"] >= 0.98
    assert [p.name for p in ReleaseStore.open().root.glob(".staged*")] == []


def test_an_order_is_learned_and_a_model_of_shuffled_labels_is_refused(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "ENOUGH_USERS", 8)
    monkeypatch.setattr(gate, "LEAST_USERS", 8)
    fill(orderly(), [f"i{n:02}" for n in range(80)], days=7)
    week = Window(START, START.replace(day=8))
    bound(monkeypatch, epochs=20)
    good = ReleaseStore.open().load(train_nightly(week)).manifest
    assert good.promoted, good.reasons
    assert good.metrics["recall@10"] > 0.7
    monkeypatch.setattr(lesson, "fit", fit_on_shuffled_labels)
    bad = ReleaseStore.open().load(train_nightly(week)).manifest
    assert not bad.promoted
    assert "worse than the best baseline" in bad.reasons[0]


def orderly() -> pa.Table:
    """80 users, one after the other, each going through twenty items in the items' order."""
    rows = [
        (f"u{user}", f"i{(user * 7 + step) % 80:02}", user * 100 + step)
        for user in range(80)
        for step in range(20)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "minute"])
    frame["event_id"] = [f"e{n}" for n in range(len(frame))]
    frame["event_type"] = "play"
    frame["event_ts"] = pd.Timestamp(START) + pd.to_timedelta(frame["minute"], unit="min")
    return conform(frame, EVENT_SCHEMA)


def fit_on_shuffled_labels(
    model: Model, data: Interactions, *args: np.ndarray, **options: float
) -> int:
    items = np.random.default_rng(0).permutation(data.items)
    return fit(model, replace(data, items=items), *args, **options)  # type: ignore[arg-type]


def test_nights_are_compared_on_what_both_were_asked_before_they_learned_it(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEAST_USERS", 8)
    fill(orderly(), [f"i{n:02}" for n in range(80)], days=8)
    store, week = ReleaseStore.open(), Window(START, START.replace(day=8))
    bound(monkeypatch, epochs=15)
    good = train_nightly(week)
    store.promote(good)
    assert train_nightly(week) == good, "the same again"
    hour = finetune(Window(START.replace(day=6), week.end), good)
    assert hour is not None
    answers = [np.load(store.root / version / names.ANSWERS) for version in (good, hour)]
    np.testing.assert_array_equal(*answers)

    bound(monkeypatch, epochs=1)
    hasty = store.load(train_nightly(week)).manifest
    assert not hasty.promoted
    assert f"not better beyond noise than the active release {good}" in hasty.reasons[0]
    later = store.load(train_nightly(Window(START, week.end + HOUR))).manifest
    assert not later.promoted, "fresher, and much worse"
    asked = len(answers[0])
    assert f"more than 10% worse than the active release {good}" in later.reasons[0]
    assert f"on {asked} events" in later.reasons[0]


class Asked(Exception):
    """The night comes to its held-out slice."""


def learned_before_it_is_asked(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch, world: pa.Table
) -> dict[str, torch.Tensor]:
    """All that a night's model holds when its held-out slice is asked for."""
    states = []

    def asked(model: Model, data: Interactions) -> None:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        raise Asked

    fill(world, [f"i{n:02}" for n in range(80)], days=8)
    bound(monkeypatch, epochs=1)
    monkeypatch.setattr(nightly, "model_scorer", asked)
    with pytest.raises(Asked):
        train_nightly(Window(START, START.replace(day=8)))
    return states[0]


def newest_changed(world: pa.Table, share: float) -> pa.Table:
    """The same users at the same times, of whom the newest share of events is about other items."""
    items = np.array(world["item_id"].to_pylist())
    late = np.argsort(world["event_ts"].to_numpy())[-round(share * len(items)) :]
    items[late] = items[late[::-1]]
    return world.set_column(world.schema.get_field_index("item_id"), "item_id", pa.array(items))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_held_out_changes_nothing_that_is_learned_before(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = orderly()
    held_out, watched_too = newest_changed(world, 0.1), newest_changed(world, 0.12)
    first, later, earlier = (
        learned_before_it_is_asked(fill, monkeypatch, each)
        for each in (world, held_out, watched_too)
    )
    assert same(first, later)
    assert not same(first, earlier)


def test_a_night_that_learns_what_it_is_asked_for_is_seen(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(self: Lesson, **options: Any) -> Fitted:
        learned = np.sort(np.concatenate([self.split.learned, self.split.held_out]))
        return most(replace(self, split=replace(self.split, learned=learned)), **options)

    most = Lesson.most
    monkeypatch.setattr(Lesson, "most", leaky)
    world = orderly()
    first, later = (
        learned_before_it_is_asked(fill, monkeypatch, each)
        for each in (world, newest_changed(world, 0.1))
    )
    assert not same(first, later)


def test_a_night_answers_for_parts_of_users_and_for_what_its_lists_show(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENOUGH_USERS", "ENOUGH_EVENTS", "LEAST_USERS"):
        monkeypatch.setattr(gate, name, 1)
    fill(orderly(), [f"i{n:02}" for n in range(80)], days=8)
    store, week = ReleaseStore.open(), Window(START, START.replace(day=8))
    bound(monkeypatch, epochs=15)
    good = train_nightly(week)
    store.promote(good)
    bound(monkeypatch, epochs=1)
    hasty = store.load(train_nightly(week)).manifest
    assert any(f"more than 10% worse than {good} for " in reason for reason in hasty.reasons)
    assert any("its lists show" in reason for reason in hasty.reasons)


def bound(monkeypatch: pytest.MonkeyPatch, *, epochs: int) -> None:
    """Let nights learn for so many passes."""
    recipe = load_recipe("small")
    learning = recipe.learning.model_copy(update={"epochs": epochs})
    hasty = recipe.model_copy(update={"learning": learning})
    monkeypatch.setattr(nightly, "load_recipe", lambda _: hasty)


def test_a_young_sites_nights_are_compared_on_what_came_since(
    fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEAST_USERS", 8)
    fill(orderly(), [f"i{n:02}" for n in range(80)], days=8)
    store, four_days = ReleaseStore.open(), Window(START, START.replace(day=5))
    bound(monkeypatch, epochs=15)
    good = train_nightly(four_days)
    store.promote(good)
    bound(monkeypatch, epochs=1)
    later = store.load(train_nightly(Window(START, START.replace(day=8)))).manifest
    assert not later.promoted
    assert any(f"10% worse than the active release {good}" in told for told in later.reasons)


def wider_images(patch: pytest.MonkeyPatch, items: pa.Table) -> pa.Table:
    vectors = pa.array([[1.0, 0, 0, 0]] * items.num_rows, pa.list_(pa.float32()))
    return items.set_column(items.schema.get_field_index("image_vector"), "image_vector", vectors)


def another_type(patch: pytest.MonkeyPatch, items: pa.Table) -> pa.Table:
    known = load_domain("entertainment")
    more = {"skip": known.event_types["play"]} | known.event_types
    wider = known.model_copy(update={"event_types": more})
    patch.setattr(nightly, "load_domain", lambda _: wider)
    return items


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wider_images, "it reads image_vectors of 3 numbers, items have 4 now"),
        (another_type, "it knows other types of events"),
    ],
)
def test_a_young_sites_champion_that_reads_otherwise_is_not_asked(
    fill: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch, pa.Table], pa.Table],
    told: str,
) -> None:
    rows = {
        "item_id": [f"i{n:02}" for n in range(80)],
        "image_vector": [[1.0, 0.5, n / 80] for n in range(80)],
    }
    items = conform(pd.DataFrame(rows), ITEM_SCHEMA)
    fill(orderly(), items, days=8)
    bound(monkeypatch, epochs=1)
    store = ReleaseStore.open()
    champion = train_nightly(Window(START, START.replace(day=5)))
    store.promote(champion)
    fill(orderly(), change(monkeypatch, items), days=8)
    manifest = store.load(train_nightly(Window(START, START.replace(day=8)))).manifest
    assert f"the night of {champion} could not be asked: {told}" in manifest.reasons


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (names.ANSWERS, "no events to compare it with the active release {}"),
        ("manifest.json", "the active release could not be asked: release {}: its manifest is"),
    ],
)
def test_a_damaged_champion_does_not_keep_a_new_night_from_being_made(
    full_lake: Lake, file: str, told: str
) -> None:
    store = ReleaseStore.open()
    champion = train_nightly(DAY_THREE)
    store.promote(champion)
    (store.root / champion / file).write_bytes(b"")
    manifest = store.load(train_nightly(WINDOW)).manifest
    assert any(reason.startswith(told.format(champion)) for reason in manifest.reasons)


def test_an_hour_whose_night_is_damaged_is_a_champion_by_itself(full_lake: Lake) -> None:
    store = ReleaseStore.open()
    night = train_nightly(DAY_THREE)
    hour = finetune(Window(DAY_THREE.end, DAY_THREE.end.replace(day=5)), night)
    assert hour is not None
    store.promote(night)
    store.promote(hour)
    (store.root / night / "manifest.json").write_bytes(b"")
    manifest = store.load(train_nightly(WINDOW)).manifest
    assert any(f"the active release {hour}" in reason for reason in manifest.reasons)


def test_a_size_that_reads_more_than_is_kept_is_told(
    full_lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings(), "sequence_length", 20)
    bound(monkeypatch, epochs=1)
    folder = ReleaseStore.open().load(train_nightly(DAY_THREE)).path
    assert json.loads((folder / names.CONFIG).read_text())["length"] == 20
    assert "reads 50 events, NEARLINE_SEQUENCE_LENGTH keeps 20" in caplog.text


def test_a_release_that_answers_too_slowly_is_refused(
    full_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "gate_latency_ms", 0.001)
    manifest = ReleaseStore.open().load(train_nightly(DAY_THREE)).manifest
    assert not manifest.promoted
    assert "ms for a user of 50 events (at most 0.001)" in manifest.reasons[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("u1 z play 0\n u1 z play 9", "no event in .* is about an item of the catalogue"),
        ("u1 a play 0\n u2 b play 9\n u3 a play 12", "none follows an earlier event"),
    ],
)
def test_nothing_to_learn_is_told_and_nothing_published(
    fill: Callable[..., None], events: Events, rows: str, message: str
) -> None:
    fill(events(rows), ["a", "b"])
    with pytest.raises(BadInput, match=message):
        train_nightly(DAY)
    assert ReleaseStore.open().manifests() == []


def test_an_empty_window_is_told(fill: Callable[..., None], events: Events) -> None:
    fill(events("u1 a play 0").slice(0, 0), ["a"])
    with pytest.raises(BadInput, match="nothing to learn from"):
        train_nightly(DAY)


def test_without_events_or_catalogue_it_says_what_to_run(lake: Lake) -> None:
    with pytest.raises(MissingPartition, match="load items first"):
        train_nightly(DAY)


def test_a_handful_of_events_without_text_still_gives_a_release(
    fill: Callable[..., None], events: Events
) -> None:
    rows = "\n".join(f"u{n % 5} i{n % 7} play {n * 60}" for n in range(60))
    items = conform(pd.DataFrame({"item_id": [f"i{n}" for n in range(9)]}), ITEM_SCHEMA)
    fill(events(rows), items)
    release = ReleaseStore.open().load(train_nightly(DAY))
    matrix = names.read_matrix(release.path)
    assert matrix.shape[0] == 9
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_the_time_budget_ends_the_training(
    full_lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NEARLINE_MAX_TRAIN_MINUTES", "0.00001")
    settings.cache_clear()
    manifest = ReleaseStore.open().load(train_nightly(DAY_THREE)).manifest
    assert (manifest.lineage["passes"], manifest.lineage["cut_short"]) == (1, 1)
    assert "NEARLINE_MAX_TRAIN_MINUTES (1e-05) cut the night short, after" in caplog.text


def test_a_nights_last_parts_keep_their_share_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(lesson.time, "monotonic", lambda: now[0])
    night = NightTime(1000, 1100)
    assert night.for_most() == pytest.approx(1080)
    assert night.for_watched() == pytest.approx(1087), "what was left by the part before is its own"
    now[0] = 1090.0
    assert night.for_watched() == pytest.approx(1097), "measuring takes nothing from it"
    assert night.for_held_out() == pytest.approx(1103)


@pytest.mark.parametrize("domain", ["commerce", "social"])
def test_every_domain_trains(
    lake: Lake,
    fill: Callable[..., None],
    events: Events,
    domain: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEARLINE_DOMAIN", domain)
    settings.cache_clear()
    kinds = {"commerce": ["view", "purchase", "search"], "social": ["like", "share", "impression"]}
    rows = "\n".join(
        f"u{n % 6} {'-' if kinds[domain][n % 3] == 'search' else f'i{n % 11}'} "
        f"{kinds[domain][n % 3]} {n * 60}"
        for n in range(120)
    )
    fill(events(rows), [f"i{n}" for n in range(11)])
    folder: Path = ReleaseStore.open().load(train_nightly(DAY)).path
    types = names.read_vocabulary(folder).event_types
    assert "impression" not in types
