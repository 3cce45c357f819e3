"""What training reads of a past moment is what serving reads of that moment, to the last bit."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from feature_repo.partitions import view_schema
from feature_repo.views import BATCH_VIEWS
from nearline.lake import Lake
from nearline.ranking import COLUMNS, POOL, pooled
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.schema import EVENT_SCHEMA, FEATURE_TS, ITEM_SCHEMA
from nearline.sequence import History, Vocabulary, microseconds
from nearline.settings import settings
from nearline.sources.dataset import conform
from nearline.windows import HOUR, Window
from nearline.words import LONGEST
from pipeline.online import feature_store, hourly_views, materialize
from serving import retrieve
from serving.catalogue import Catalogue, Snapshot
from serving.features import FeatureReader
from serving.ranking import request_matrix
from serving.release import LoadedRelease, Pinned
from serving.rules import Rules
from serving.stored import RankingFeatures
from serving.users import UserState
from training.baselines import Neighbours, item_neighbours
from training.bundle import Bundle, write_bundle
from training.content import content_ids, given_vectors
from training.dataset import interactions
from training.lending import borrow
from training.model import Model, ModelConfig
from training.ranking.candidates import Retrieval
from training.ranking.examples import examples
from training.recipe import load_recipe

T0 = datetime(2026, 1, 10, 9, tzinfo=UTC)
NOW = T0 + timedelta(minutes=20)
ITEMS = ("alien", "brazil", "casablanca", "dune", "eden")
EVENTS = [
    # user, item, hours before T0
    *(("ann", "alien", 30), ("ann", "brazil", 2), ("bob", "alien", 5), ("bob", "dune", 4)),
    *(("cyd", "brazil", 9), ("cyd", "eden", 8)),
]
KNOWN: dict[str, list[dict[str, Any]]] = {
    "user_activity": [{"user_id": "ann", "events_1h": 0, "events_24h": 1, "events_30d": 2}],
    "user_habits": [
        {
            "user_id": "ann",
            "sessions_30d": 2,
            "session_events_30d": 1.5,
            "hours_of_day": [n / 276 for n in range(24)],
            "weekend_share": 1 / 3,
        }
    ],
    "user_category_affinity": [
        {
            "user_id": "ann",
            "categories": ["space", "war"],
            "affinities": [0.7, 0.3],
            "distinct_categories": 2,
            "diversity": 0.88,
        }
    ],
    "item_popularity": [
        {"item_id": "dune", "events_24h": 3, "velocity": 1 / 7, "age_hours": 12.5},
        {"item_id": "eden", "events_24h": 1, "decayed_weight": 0.1},
    ],
    "item_conversion": [{"item_id": "dune", "conversion_30d": 0.25}],
    "trending": [{"surface": "all", "item_ids": ["eden", "alien"], "scores": [2.0, 1.5]}],
}


@pytest.fixture
def known(home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The features of the hour before T0, in the lake and online; no busy machine reads late."""
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "60000")
    settings.cache_clear()
    lake, hour, views = Lake.open(), Window(T0 - HOUR, T0), {v.name: v for v in BATCH_VIEWS}
    for view in hourly_views():
        rows = [row | {FEATURE_TS: T0} for row in KNOWN.get(view, [])]
        if rows:
            table = pa.Table.from_pylist(rows, schema=view_schema(views[view]))
            lake.write_hour(f"features/{view}", hour.start, table)
        lake.mark_complete(f"features/{view}", hour, rows=len(rows))
    feature_store.cache_clear()
    materialize(hour)
    yield
    feature_store.cache_clear()


@pytest.fixture
def reader() -> Iterator[FeatureReader]:
    reader = FeatureReader.open()
    reader.warm()
    yield reader
    reader.close()


def clean_events() -> pa.Table:
    frame = pd.DataFrame(
        [(u, i, T0 - hours * HOUR) for u, i, hours in EVENTS] + [("ann", "dune", NOW)],
        columns=["user_id", "item_id", "event_ts"],
    )
    frame["event_ts"] = pd.to_datetime(frame["event_ts"], utc=True)
    frame["event_type"], frame["event_id"] = "play", [f"e{n}" for n in range(len(frame))]
    return conform(frame, EVENT_SCHEMA)


def model_of(items: int) -> Model:
    """A model to which the first and the fourth item are alike."""
    torch.manual_seed(1)
    shape = {"dim": 8, "heads": 2, "layers": 1, "length": 4, "dropout": 0.0}
    content = {"content_buckets": 16, "content_width": 2, "id_dropout": 0.0, "temperature": 0.1}
    config = ModelConfig(items=items, types=1, **shape, **content)  # type: ignore[arg-type]
    model = Model(config, torch.tensor([[1, 2], [3, 0], [4, 0], [1, 0], [5, 0]])).eval()
    model.item_tower.touch(np.arange(items))
    borrow(model)
    return model


def manifest() -> ReleaseManifest:
    told = {"kind": "nightly", "parent": None, "base": None, "promoted": True, "reasons": []}
    return ReleaseManifest(window_start=T0 - HOUR, window_end=T0, metrics={}, **told)


def test_training_and_serving_read_the_same(known: None, reader: FeatureReader) -> None:
    categories = [["space"], ["space", "war"], ["war"], ["space"], None]
    rows = {"item_id": ITEMS, "categories": categories, "created_ts": T0 - 99 * HOUR}
    catalogue = conform(pd.DataFrame(rows), ITEM_SCHEMA)
    vocabulary, model = Vocabulary(ITEMS, ("play",)), model_of(len(ITEMS))
    data = interactions(clean_events(), vocabulary, ["play"])
    vectors = model.item_matrix().detach().numpy()
    neighbours = item_neighbours(data, items=len(ITEMS), before=microseconds(T0))
    retrieval = Retrieval(data, model, vectors, neighbours)
    [target] = data.targets(since=microseconds(T0))
    then = examples(retrieval, np.array([target]), vocabulary, catalogue)

    trends = reader.trending()
    assert trends is not None
    pairs = list(zip(trends.item_ids, trends.scores, strict=True))
    by_row = [(vocabulary.item_row[item_id], score) for item_id, score in pairs]
    [found] = retrieval.lists(np.array([target]), [by_row])
    lists = {source: [(ITEMS[row], score) for row, score in each] for source, each in found.items()}
    candidates = pooled(lists)
    ann = History(
        ("alien", "brazil"),
        ("play", "play"),
        (microseconds(T0 - 30 * HOUR), microseconds(T0 - 2 * HOUR)),
        (0.0, 0.0),
    )
    release = LoadedRelease(manifest(), "full", vocabulary, vectors, vectors[:, 0], 4, None)  # type: ignore[arg-type]
    pinned = Pinned.of(release, Catalogue(Snapshot(catalogue)))
    user, items, _ = RankingFeatures(reader).of("ann", candidates, NOW)
    now = request_matrix(pinned, UserState(ann, user_id="ann"), candidates, lists, user, items, NOW)

    assert candidates[then.wanted[0]] == "dune"
    for n, column in enumerate(COLUMNS):
        np.testing.assert_array_equal(then.rows[:, n], now[:, n], err_msg=column)
    told = dict(zip(COLUMNS, then.rows[then.wanted[0]], strict=True))
    assert told["item_conversion__conversion_30d"] == 0.25
    assert told["user_habits__sessions_30d"] == 2
    assert told["affinity_sum"] == np.float32(0.7)
    assert (told["alike_place"], told["alike_share"]) == (0, 1)
    assert told["usual_hour"] == np.float32(9 / 276)
    assert {name for name, value in told.items() if np.isnan(value)} <= {
        "user_activity__events_7d",
        "item_popularity__events_1h",
        "item_popularity__events_7d",
        "item_popularity__events_30d",
        "item_popularity__mean_value_30d",
        "item_popularity__decayed_weight",
        "encoder_share",
        "trending_place",
        "trending_share",
    }


SAID = {
    "alien": ("Alien", ["space", "horror"], None),
    "aliens": ("Aliens", ["space", "war"], None),
    "casablanca": ("Casablanca", ["war", "love"], None),
    "dune": ("Dune", ["space"], None),
    "eden": (None, None, [1.0, 0.0]),
    "fargo": (None, None, [3.0, 1.0]),
    "gilda": ("Gilda", ["love"], [0.0, 1.0]),
    "heat": ("Heat", ["war"], None),
    "ida": (None, None, None),
}
"""Title, categories and text vector of films, of which the last one says nothing."""

LATELY = ("heat", "alien", "eden", "alien", "ida", "casablanca")


def test_training_and_serving_propose_the_same_by_content(home: Any) -> None:
    columns = ("title", "categories", "text_vector")
    said = dict(zip(columns, map(list, zip(*SAID.values(), strict=True)), strict=True))
    rows = {"item_id": list(SAID), "created_ts": T0 - 99 * HOUR} | said
    catalogue = conform(pd.DataFrame(rows), ITEM_SCHEMA)
    vocabulary = Vocabulary(tuple(SAID), ("play",))
    model = telling_model(catalogue)
    played = [(item_id, T0 - (9 - n) * HOUR) for n, item_id in enumerate(LATELY)]
    frame = pd.DataFrame([*played, ("dune", NOW)], columns=["item_id", "event_ts"])
    frame["event_ts"] = pd.to_datetime(frame["event_ts"], utc=True)
    told = {"user_id": "ann", "event_type": "play", "event_id": [f"e{n}" for n in frame.index]}
    data = interactions(conform(frame.assign(**told), EVENT_SCHEMA), vocabulary, ["play"])
    [target] = data.targets(since=microseconds(T0))
    nobody = Neighbours(np.full((len(SAID), 1), -1), np.zeros((len(SAID), 1), dtype=np.float32))
    retrieval = Retrieval(data, model, model.item_matrix().detach().numpy(), nobody)
    [then] = retrieval.lists(np.array([target]), [[]])

    release = released(model, vocabulary)
    pinned = Pinned.of(release, Catalogue(Snapshot(catalogue)))
    moments = tuple(microseconds(at) for _, at in played)
    ann = History(LATELY, ("play",) * len(LATELY), moments, (0.0,) * len(LATELY))
    rules = Rules(pinned, microseconds(NOW), frozenset(LATELY))
    now = retrieve.alike(rules, POOL, history=ann)

    assert now.source == "alike"
    assert [item_id for item_id, _ in now.items] == [
        vocabulary.item_ids[r] for r, _ in then["alike"]
    ]
    scores = [score for _, score in now.items]
    assert scores == pytest.approx([score for _, score in then["alike"]], rel=1e-6)
    assert {item_id for item_id, _ in now.items} == {"aliens", "dune", "fargo", "gilda"}


def telling_model(catalogue: pa.Table) -> Model:
    """A model that reads the words of a catalogue and vectors of two numbers."""
    torch.manual_seed(1)
    shape = {"dim": 8, "heads": 2, "layers": 1, "length": 9, "dropout": 0.0, "id_dropout": 0.0}
    content = {"content_buckets": 1000, "content_width": LONGEST, "temperature": 0.1}
    given = (2, 0, 0)
    config = ModelConfig(catalogue.num_rows, 1, given=given, **shape, **content)  # type: ignore[arg-type]
    words = torch.from_numpy(content_ids(catalogue, buckets=config.content_buckets))
    model = Model(config, words, torch.from_numpy(given_vectors(catalogue, given))).eval()
    model.item_tower.touch(np.arange(catalogue.num_rows))
    borrow(model)
    return model


def released(model: Model, vocabulary: Vocabulary) -> LoadedRelease:
    """The model as a release, read back as serving reads it."""
    learning = load_recipe("small").learning
    popularity = np.zeros(len(vocabulary.item_ids), dtype=np.float32)
    store = ReleaseStore.open()
    with store.stage() as folder:
        write_bundle(folder, Bundle(model, vocabulary, popularity, "small", learning))
        version = store.publish(folder, manifest())
    return LoadedRelease.load(store.load(version))
