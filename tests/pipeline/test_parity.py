"""What the online store answered at a moment is what history tells of that moment.

A small shop lives through a few hours and a month of silence, each through the real steps. After
each of them every key of every batch view is read online; at the end Feast's historical retrieval
is asked about the same moments.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureView

from feature_repo.services import ranking_v1
from feature_repo.views import BATCH_VIEWS
from nearline.lake import RAW, Lake
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import append_raw, upsert_items
from nearline.windows import HOUR, Window
from pipeline import steps
from pipeline.online import feature_store

pytestmark = pytest.mark.slow

T0 = datetime(2026, 1, 10, tzinfo=UTC)
KEYS = {
    "user_id": ["ada", "bob", "eve", "nobody"],
    "item_id": ["lamp", "chair", "nothing"],
    "surface": ["all"],
}
HOURS = [
    # user, item, event type, hours after T0; eve's cart arrives two hours late.
    [("ada", "lamp", "view", 0.1), ("ada", "chair", "view", 0.2), ("bob", "lamp", "view", 0.3)],
    [("ada", "lamp", "add_to_cart", 1.5), ("eve", "chair", "view", 1.6)],
    [("ada", "lamp", "purchase", 2.5), ("ada", None, "search", 2.6)],
    [("eve", "lamp", "add_to_cart", 1.7), ("ada", "chair", "view", 3.5)],
]
TOUCHED_LATE = {"eve", "lamp", "chair", "all"}
"""Whom the late event is about; all items, as rates are drawn to those of the site."""
NIGHT = T0 + 3 * HOUR
SILENCE = Window(T0 + 4 * HOUR, T0 + 31 * 24 * HOUR)
LONG_AFTER = SILENCE.end + timedelta(days=366)
Answer = dict[str, Any]
Answers = dict[tuple[str, str, datetime], Answer]
"""Every feature, by view, key and moment."""


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, spark: object) -> Iterator[Answers]:
    """What was read online after each hour, after the silence, and long after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEARLINE_DOMAIN", "commerce")
        settings.cache_clear()
        feature_store.cache_clear()
        yield live()
        feature_store.cache_clear()
    settings.cache_clear()


def live() -> Answers:
    items = [
        {"item_id": i, "title": i, "categories": [i], "created_ts": T0, "available": True}
        for i in ("lamp", "chair")
    ]
    upsert_items(Lake.open(), pa.Table.from_pylist(items, schema=ITEM_SCHEMA))
    answers: Answers = {}
    for n, events in enumerate(HOURS):
        hour = Window.of_hour(T0 + n * HOUR)
        rows = [raw(event, hour) for event in events]
        append_raw(Lake.open(), pa.Table.from_pylist(rows, schema=RAW_SCHEMA))
        run(hour)
        if hour.end == NIGHT:
            steps.item_neighbours(Window(T0, NIGHT))
        answers |= online(hour.end)
    run(SILENCE)
    return answers | online(SILENCE.end) | online(LONG_AFTER)


def raw(event: tuple[str, str | None, str, float], hour: Window) -> dict[str, Any]:
    user, item, kind, at = event
    happened = T0 + timedelta(hours=at)
    return {
        "event_id": f"{user}-{at}",
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "event_ts": happened.isoformat(),
        "value": "9.5" if kind == "purchase" else None,
        "query": "red lamp" if kind == "search" else None,
        "source": "test",
        "received_ts": max(happened, hour.start),
    }


def run(window: Window) -> None:
    Lake.open().mark_complete(RAW, window, rows=0)
    steps.spark_features(window)
    steps.dbt_marts(window)
    steps.materialize(window)


def key_of(view: FeatureView) -> str:
    [key] = view.join_keys
    return str(key)


def features_of(view: FeatureView) -> list[str]:
    return [f"{view.name}:{feature.name}" for feature in view.features]


def online(moment: datetime) -> Answers:
    """Each key's features as a reader takes them at a moment: a row past its ttl tells nothing."""
    answers: Answers = {}
    for view in BATCH_VIEWS:
        key = key_of(view)
        response = feature_store().get_online_features(
            features_of(view), [{key: value} for value in KEYS[key]]
        )
        columns = response.to_dict(include_event_timestamps=True)
        for at, value in enumerate(KEYS[key]):
            row = {name: column[at] for name, column in columns.items()}
            assert view.ttl
            fresh = row[f"{view.features[0].name}__ts"] >= (moment - view.ttl).timestamp()
            answers[view.name, value, moment] = {
                f.name: row[f.name] if fresh else None for f in view.features
            }
    return answers


def history(moments: list[datetime]) -> Answers:
    """The same from Feast's historical retrieval."""
    answers: Answers = {}
    for view in BATCH_VIEWS:
        key = key_of(view)
        asked = [(value, moment) for value in KEYS[key] for moment in moments]
        job = feature_store().get_historical_features(
            pd.DataFrame(asked, columns=[key, "event_timestamp"]), features_of(view)
        )
        for row in job.to_arrow().to_pylist():
            answers[view.name, row[key], row["event_timestamp"]] = {
                feature.name: in_seconds(row[feature.name]) for feature in view.features
            }
    return answers


def in_seconds(value: Any) -> Any:
    """Online, Feast keeps times in whole seconds."""
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


def moments(answers: Answers) -> list[datetime]:
    return sorted({moment for *_, moment in answers})


def test_history_tells_what_was_answered_but_for_what_came_late(answered: Answers) -> None:
    told = history(moments(answered))
    assert told.keys() == answered.keys()
    differing = {where for where, answer in answered.items() if told[where] != answer}
    assert {key for _, key, _ in differing} <= TOUCHED_LATE
    assert {moment for *_, moment in differing} == {T0 + 2 * HOUR, T0 + 3 * HOUR}


def test_each_view_was_answered_and_expired(answered: Answers) -> None:
    for view in BATCH_VIEWS:
        key = KEYS[key_of(view)][0]
        assert set(map(type, answered[view.name, key, NIGHT].values())) != {type(None)}, view.name
        assert set(map(type, answered[view.name, key, LONG_AFTER].values())) == {type(None)}


def test_an_idle_user_counts_down_and_a_stranger_has_nothing(answered: Answers) -> None:
    def events(user: str, moment: datetime) -> list[int | None]:
        row = answered["user_activity", user, moment]
        return [row[f"events_{w}"] for w in ("1h", "24h", "7d", "30d")]

    assert events("bob", T0 + HOUR) == [1, 1, 1, 1]
    assert events("bob", T0 + 2 * HOUR) == [0, 1, 1, 1]
    assert events("bob", SILENCE.end) == [0, 0, 0, 0]
    assert events("nobody", T0 + HOUR) == [None] * 4


def test_a_late_event_corrects_history_and_the_answers_from_when_it_came(
    answered: Answers,
) -> None:
    told = history([T0 + 2 * HOUR, T0 + 4 * HOUR])

    def eve(answers: Answers, hours: int) -> int:
        return int(answers["user_activity", "eve", T0 + hours * HOUR]["events_24h"])

    assert (eve(answered, 2), eve(told, 2)) == (1, 2)
    assert (eve(answered, 4), eve(told, 4)) == (2, 2)


def test_a_feature_service_gives_the_same_values(answered: Answers) -> None:
    moment = T0 + 4 * HOUR
    asked = pd.DataFrame({"user_id": ["ada"], "item_id": ["lamp"], "event_timestamp": [moment]})
    job = feature_store().get_historical_features(
        asked, feature_store().get_feature_service(ranking_v1.name), full_feature_names=True
    )
    [row] = job.to_arrow().to_pylist()
    for view, key in (("user_activity", "ada"), ("item_popularity", "lamp")):
        answer = answered[view, key, moment]
        assert {name: in_seconds(row[f"{view}__{name}"]) for name in answer} == answer
