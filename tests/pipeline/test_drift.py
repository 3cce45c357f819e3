"""Drift of features: seen where there is one, and only there."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from nearline.lake import Lake
from nearline.schema import FEATURE_TS, TIMESTAMP
from nearline.windows import HOUR, Window
from pipeline import drift, summaries
from pipeline.drift import FEATURE_DRIFT, compare, latest, stability, told, watch_features
from pipeline.summaries import FEATURE_SUMMARY, SUMMARY_SCHEMA, bin_of, summarise

END = datetime(2026, 1, 20, tzinfo=UTC)
DATASET = "features/user_activity"
EIGHT_DAYS = Window.trailing(END, hours=192)
LAST_DAY = Window.trailing(END, hours=24)


@pytest.fixture
def lake(home: object, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """An empty lake of one feature mart."""
    monkeypatch.setattr(drift, "FEATURES", {"feat_user_activity": DATASET})
    return Lake.open()


def features(
    hour: datetime, *, rows: int = 100, gain: float = 1, nulls: float = 0, length: int = 3
) -> pa.Table:
    """Made-up rows of an hour: `gain` times the count, `nulls` of them null."""
    rng = np.random.default_rng(int(hour.timestamp()))
    lengths = np.full(rows, length)
    return pa.table(
        {
            "user_id": [f"u{n}" for n in range(rows)],
            "events": pa.array(rng.poisson(20 * gain, rows), mask=rng.random(rows) < nulls),
            "shares": pa.array([rng.random(n).tolist() for n in lengths]),
            "name": pa.array(["view"] * rows),
            "last_ts": pa.array([hour] * rows, TIMESTAMP),
            FEATURE_TS: pa.array([hour + HOUR] * rows, TIMESTAMP),
        }
    )


def fill(lake: Lake, window: Window, **traits: float) -> None:
    for hour in window.hours():
        lake.write_hour(DATASET, hour, features(hour, **traits))  # type: ignore[arg-type]
    lake.mark_complete(DATASET, window, rows=0)


def drifted(lake: Lake) -> set[tuple[str, str]]:
    return {(row["feature"], row["series"]) for row in watch_features(EIGHT_DAYS)}


def test_features_that_stay_as_they_were_are_steady(lake: Lake) -> None:
    fill(lake, EIGHT_DAYS)
    assert drifted(lake) == set()
    states = {(row["feature"], row["series"]): row["state"] for row in latest(lake)}
    assert set(states.values()) == {"steady"}
    assert set(states) == {
        ("events", "value"),
        ("shares", "length"),
        ("shares", "elements"),
        ("name", "length"),
        ("last_ts", "age_hours"),
    }


def test_a_feature_that_shifts_is_named(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    fill(lake, EIGHT_DAYS)
    fill(lake, LAST_DAY, gain=2)
    assert drifted(lake) == {("events", "value")}
    assert "drift: user_activity events (value): PSI" in caplog.text
    row = latest(lake)[0]
    assert row["mean"] == pytest.approx(40, abs=1)
    assert row["mean_before"] == pytest.approx(20, abs=1)
    assert told(row) in caplog.text


def test_a_constant_that_becomes_another_is_found(lake: Lake) -> None:
    fill(lake, EIGHT_DAYS)
    fill(lake, LAST_DAY, length=5)
    assert drifted(lake) == {("shares", "length")}


def test_a_burst_of_nulls_is_found(lake: Lake) -> None:
    fill(lake, EIGHT_DAYS)
    fill(lake, LAST_DAY, nulls=0.3)
    assert drifted(lake) == {("events", "value")}
    assert latest(lake)[0]["null_share"] == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("rows", "hours"), [(20, 192), (100, 140)], ids=["few rows", "few days"])
def test_what_is_too_little_to_tell_raises_no_alarm(lake: Lake, rows: int, hours: int) -> None:
    known = Window.trailing(END, hours=hours)
    fill(lake, known, rows=rows)
    fill(lake, LAST_DAY, rows=rows, gain=5)
    assert watch_features(known) == []
    assert {row["state"] for row in latest(lake)} == {"unknown"}
    assert {row["psi"] for row in latest(lake)} == {None}


def test_an_hour_again_gives_the_same_bytes_and_takes_only_that_hour(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, EIGHT_DAYS)
    watch_features(EIGHT_DAYS)
    last = Window.trailing(END, hours=1)
    read: list[datetime] = []
    summary = summaries.summary
    monkeypatch.setattr(
        summaries,
        "summary",
        lambda lake, dataset, hour: [read.append(hour), summary(lake, dataset, hour)][1],
    )
    datasets = FEATURE_SUMMARY, FEATURE_DRIFT
    before = [lake.fs.cat_file(lake.hour_path(each, last.start)) for each in datasets]
    watch_features(last)
    assert [lake.fs.cat_file(lake.hour_path(each, last.start)) for each in datasets] == before
    assert read == [last.start]


def test_a_day_without_features_is_compared_all_the_same(lake: Lake) -> None:
    fill(lake, Window(EIGHT_DAYS.start, LAST_DAY.start))
    lake.mark_complete(DATASET, LAST_DAY, rows=0)
    assert drifted(lake) == set()
    assert {row["rows"] for row in latest(lake)} == {0}


def test_summaries_of_hours_add_up_to_that_of_their_rows() -> None:
    hours = list(Window.trailing(END, hours=3).hours())
    parts = [row for h in hours for row in summarise(DATASET, features(h)).to_pylist()]
    whole = summarise(DATASET, pa.concat_tables(features(h) for h in hours)).to_pylist()
    for row in whole:
        same = [p for p in parts if (p["feature"], p["series"]) == (row["feature"], row["series"])]
        for name in ("rows", "nulls", "values"):
            assert row[name] == sum(p[name] for p in same)
        counts = {
            b: sum(dict(zip(p["bins"], p["counts"], strict=True)).get(b, 0) for p in same)
            for b in row["bins"]
        }
        assert row["counts"] == list(counts.values())


def test_bins_tell_sign_and_size_and_keep_to_their_range() -> None:
    numbers = np.array([0.0, 1.0, 1.4, 1.5, 2.0, -1.0, 1e-30, 1e300, -np.inf])
    assert bin_of(numbers).tolist() == [0, 21, 21, 22, 23, -21, 1, 101, -101]


def test_every_type_is_summarised() -> None:
    table = pa.table(
        {
            "flag": [True, False, None],
            "words": [["a", "bcd"], None, []],
            "times": pa.array([[END - HOUR], [], None], pa.list_(TIMESTAMP)),
            "odd": pa.array([{"a": 1}, None, None]),
            "number": [1.0, float("nan"), None],
            FEATURE_TS: pa.array([END] * 3, TIMESTAMP),
        }
    )
    found = summarise("features/x", table)
    assert found.schema == SUMMARY_SCHEMA
    assert [
        (r["feature"], r["series"], r["nulls"], r["values"], r["value_sum"])
        for r in found.to_pylist()
    ] == [
        ("flag", "value", 1, 2, 1.0),
        ("words", "length", 1, 2, 2.0),
        ("words", "elements", 0, 2, 4.0),
        ("times", "length", 1, 2, 1.0),
        ("times", "elements", 0, 1, 1.0),
        ("odd", "nulls", 2, 1, 0.0),
        ("number", "value", 2, 1, 1.0),
    ]


def test_the_index_of_two_samples_of_one_law_is_near_zero_on_average() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        now, then = (rng.multinomial(500, np.full(10, 0.1)) for _ in range(2))
        found.append(stability(dict(enumerate(now)), dict(enumerate(then)), 500, 500))
    assert np.mean(found) < 0.01
    assert max(found) < 0.1


def test_the_index_is_the_sum_over_bins() -> None:
    now, then = {0: 9_000, 5: 1_000}, {0: 5_000, 5: 5_000}
    expected = (0.9 - 0.5) * np.log(0.9 / 0.5) + (0.1 - 0.5) * np.log(0.1 / 0.5)
    assert stability(now, then, 10_000, 10_000) == pytest.approx(expected, abs=1e-3)


def test_nothing_was_compared_yet(lake: Lake) -> None:
    assert latest(lake) == []
    assert compare(lake, END).num_rows == 0
