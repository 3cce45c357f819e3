"""Clean: what is accepted, what is refused and why, and that nothing is lost on the way."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spark_jobs.sequences
from nearline.errors import MissingPartition
from nearline.lake import CATALOGUE, EVENTS, QUARANTINE, RAW
from nearline.schema import EVENT_SCHEMA, QUARANTINE_SCHEMA, REFUSED
from nearline.settings import settings
from spark_jobs.jobs import run_features
from spark_jobs.partials import SCHEMAS

Change = dict[str, Any]

REASONS: dict[str, list[Change]] = {
    "missing_event_id": [{"event_id": None}, {"event_id": ""}],
    "missing_user_id": [{"user_id": None}, {"user_id": ""}],
    "bad_id": [{"user_id": "a\nb"}, {"item_id": "x" * 257}],
    "unknown_event_type": [{"event_type": "sneeze"}, {"event_type": None}],
    "bad_event_ts": [{"event_ts": "soon"}, {"event_ts": None}, {"event_ts": "1767225600"}],
    "future_event": [{"event_ts": "2026-01-11T23:00:00+00:00"}],
    "too_late": [{"event_ts": "2026-01-07T00:00:00+00:00"}],
    "missing_item": [{"item_id": None}],
    "unknown_item": [{"item_id": "dune"}],
    "missing_value": [{"value": None}],
    "bad_value": [{"value": "lots"}, {"value": "NaN"}],
    "value_out_of_range": [{"value": "1.01"}, {"value": "-0.1"}, {"value": "Infinity"}],
    "bad_attributes": [{"attributes": "{"}, {"attributes": "[1]"}],
    "refused_at_intake": [{"source": f"api{REFUSED}"}],
}


def test_each_reason_to_refuse_is_told_and_every_row_kept(world: Any) -> None:
    changes = {f"{why}-{n}": c for why, all_ in REASONS.items() for n, c in enumerate(all_)}
    world.arrive(*(world.row(name, 5.5) | change for name, change in changes.items()))
    report = world.clean(5, 6)
    refused = world.rows(QUARANTINE)
    assert report.quarantined == {why: len(all_) for why, all_ in sorted(REASONS.items())}
    assert Counter(row["reason"] for row in refused) == report.quarantined
    assert {row["event_id"] for row in refused} - {None, ""} == {
        name for name in changes if not name.startswith("missing_event_id")
    }
    assert pq.read_schema(world.lake.files(QUARANTINE)[0]).equals(QUARANTINE_SCHEMA)
    assert (report.accepted, world.rows(EVENTS)) == (0, [])


def test_good_rows_become_typed_events_in_order_of_time(world: Any) -> None:
    world.arrive(
        world.row("e3", 5.75, value=None, event_type="comment", attributes='{"a": 1}'),
        world.row("e1", 5.25, session_id="s", query="old"),
        world.row("e2", 5.25, event_ts="2026-01-10T10:45:00+05:30", event_type="rating", value="4"),
    )
    report = world.clean(5, 6)
    assert (report.accepted, report.quarantined) == (3, {})
    assert pq.read_schema(world.lake.files(EVENTS)[0]).equals(EVENT_SCHEMA)
    told = [(e["event_id"], e["event_ts"], e["value"]) for e in world.rows(EVENTS)]
    assert told == [
        ("e1", world.at(5.25), 0.5),
        ("e2", world.at(5.25), 4.0),
        ("e3", world.at(5.75), None),
    ]
    assert world.rows(EVENTS)[0]["session_id"] == "s"
    assert world.rows(EVENTS)[2]["attributes"] == '{"a": 1}'


def test_a_clock_a_little_ahead_is_put_right(world: Any) -> None:
    world.arrive(world.row("near", 5.54, received=5.5), world.row("far", 5.6, received=5.5))
    assert world.clean(5, 6).quarantined == {"future_event": 1}
    assert [e["event_ts"] for e in world.rows(EVENTS)] == [world.at(5.5)]


def test_the_first_arrival_of_an_event_id_stands(world: Any) -> None:
    world.arrive(
        world.row("once", 5.5),
        world.row("once", 5.5, received=5.6, item_id="brazil"),
        world.row("once", 5.5, received=9.5),
    )
    assert world.clean(5, 10).quarantined == {"duplicate": 2}
    assert [e["item_id"] for e in world.rows(EVENTS)] == ["alien"]
    world.arrive(world.row("once", 20.5, received=20.5))
    assert world.clean(20, 21).quarantined == {"duplicate": 1}
    world.arrive(world.row("once", 90.5))
    assert world.clean(90, 91).accepted == 1


def test_a_refused_row_is_no_first_arrival(world: Any) -> None:
    world.arrive(world.row("e", 5.5, item_id="dune"), world.row("e", 5.6))
    assert world.clean(5, 6).quarantined == {"unknown_item": 1}
    assert [e["item_id"] for e in world.rows(EVENTS)] == ["alien"]


def test_a_burst_is_refused_whole_and_only_its_minute(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_BOT_EVENTS_PER_MINUTE", "3")
    settings.cache_clear()
    minute = 1 / 60
    world.arrive(
        *(world.row(f"burst{n}", 5.5 + n * minute / 10) for n in range(4)),
        *(world.row(f"busy{n}", 5.5 + minute + n * minute / 10) for n in range(3)),
        world.row("bob", 5.5, user_id="bob"),
    )
    report = world.clean(5, 6)
    assert report.quarantined == {"bot": 4}
    assert {e["event_id"] for e in world.rows(EVENTS)} == {"busy0", "busy1", "busy2", "bob"}


def test_a_late_event_joins_the_hour_in_which_it_happened(world: Any) -> None:
    world.arrive(world.row("first", 5.5))
    world.run(5, 6)
    world.arrive(
        world.row("late", 5.2, received=53.9, user_id="bob"),
        world.row("too late", 4.9, received=53.9),
        world.row("now", 53.1),
    )
    report = world.run(53, 54)
    assert report.quarantined == {"too_late": 1}
    assert report.touched_hours == [world.at(5), world.at(53)]
    assert report.changed == world.window(5, 54)
    assert [e["event_id"] for e in world.rows(EVENTS, 5, 6)] == ["late", "first"]
    assert [e["user_id"] for e in world.rows("partials/user_hourly", 5, 6)] == ["ada", "bob"]
    assert world.lake.changed(EVENTS, world.window(53, 54)) == world.window(5, 54)


def test_partials_are_written_beside_the_events(world: Any) -> None:
    world.arrive(
        world.row("e1", 5.1),
        world.row("e2", 5.2, item_id="brazil", value="1", query="Space"),
        world.row("e3", 5.3, event_type="rating", value="4"),
        world.row("e4", 5.4, user_id="bob", item_id="casablanca"),
    )
    report = world.run(5, 6)
    assert {name: rows for name, rows in report.rows.items() if name in SCHEMAS} == {
        "partials/user_hourly": 3,
        "partials/item_hourly": 4,
        "partials/user_category_hourly": 2,
        "partials/user_session_hourly": 2,
        "partials/user_query_hourly": 1,
    }
    for dataset, schema in SCHEMAS.items():
        assert pq.read_schema(world.lake.files(dataset)[0]).equals(schema)
        assert world.lake.covered(dataset) == [world.window(5, 6)]
    assert [tuple(row.values()) for row in world.rows("partials/user_category_hourly")] == [
        ("ada", "horror", world.at(5), 2, 3),
        ("ada", "space", world.at(5), 3, 4),
    ]


def test_an_empty_hour_is_complete_and_has_no_file(world: Any) -> None:
    report = world.run(5, 6)
    assert (report.accepted, report.quarantined, report.changed) == (0, {}, world.window(5, 6))
    assert set(world.files()) == {"catalogue/data.parquet"}
    assert world.lake.covered(EVENTS) == [world.window(5, 6)]


def test_an_hour_run_twice_gives_the_same_bytes(world: Any) -> None:
    world.arrive(world.row("e1", 5.5), world.row("e2", 5.6, item_id="dune"), world.row("e1", 5.7))
    world.run(5, 6)
    before = world.files()
    world.run(5, 6)
    assert world.files() == before


def test_an_hour_whose_events_are_gone_loses_its_files(world: Any) -> None:
    world.arrive(world.row("e1", 5.5))
    world.clean(5, 6)
    assert len(world.lake.files(EVENTS)) == 1
    world.lake.write_hour(RAW, world.at(5), pa.table({}))
    world.clean(5, 6)
    assert set(world.files()) == {"catalogue/data.parquet"}


def test_hours_that_were_not_closed_are_refused(world: Any) -> None:
    world.arrive(world.row("e1", 5.5))
    with pytest.raises(MissingPartition, match="raw is not complete"):
        run_features(world.window(5, 7))
    assert world.lake.files(EVENTS) == []


def test_a_lake_without_a_catalogue_is_refused(world: Any) -> None:
    world.arrive(world.row("e1", 5.5))
    Path(world.lake.snapshot_path(CATALOGUE)).unlink()
    with pytest.raises(MissingPartition, match="no catalogue"):
        world.clean(5, 6)


def rows_of_a_busy_day(world: Any) -> list[dict[str, Any]]:
    """Late rows, ids that come again in time and beyond it, bursts; `late_hours` is 3."""
    rng = random.Random(11)
    rows = []
    for n in range(150):
        happened = rng.uniform(0, 11.9)
        received = min(happened + rng.choice([0, 0, rng.uniform(0, 4)]), 11.99)
        user = rng.choice(["ada", "bob", "cyd"])
        event_id = f"e{rng.randrange(60)}"
        rows.append(world.row(event_id, happened, received=received, user_id=user, query=f"{n}"))
    burst = [world.row(f"b{n}", 6.5, item_id="brazil", received=6.6 + n // 4) for n in range(8)]
    return [*rows, *burst]


def test_windows_in_any_order_give_the_bytes_of_the_bulk_run(
    other_worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_LATE_HOURS", "3")
    monkeypatch.setenv("NEARLINE_BOT_EVENTS_PER_MINUTE", "3")

    bulk = other_worlds()
    rows = rows_of_a_busy_day(bulk)
    bulk.arrive(*rows)
    report = bulk.clean(0, 12)
    assert set(report.quarantined) == {"duplicate", "bot", "too_late"}
    assert report.accepted + sum(report.quarantined.values()) == len(rows)

    in_order = other_worlds()
    in_order.arrive(*rows)
    told = [in_order.clean(*hours) for hours in [(0, 5), (5, 6), (6, 7), (7, 12)]]
    assert in_order.files() == bulk.files()
    assert sum(one.accepted for one in told) == report.accepted

    shuffled = other_worlds()
    shuffled.arrive(*rows[::2])
    for first, last in [(7, 9), (0, 3), (3, 7), (9, 12)]:
        shuffled.clean(first, last)
    shuffled.arrive(*rows)
    for first, last in [(5, 8), (0, 5), (8, 12)]:
        shuffled.clean(first, last)
    assert shuffled.files() == bulk.files()


def test_an_old_window_run_again_judges_later_hours_again_where_it_takes_their_ids(
    world: Any,
) -> None:
    world.arrive(world.row("e", 5.5, received=9.5), world.row("f", 9.6))
    world.clean(5, 6)
    world.clean(9, 10)
    before = world.files()
    world.clean(5, 6)
    assert world.files() == before
    world.arrive(world.row("e", 5.5, item_id="brazil"))
    report = world.clean(5, 6)
    assert (report.accepted, report.quarantined) == (1, {})
    assert [(e["event_id"], e["item_id"]) for e in world.rows(EVENTS)] == [
        ("e", "brazil"),
        ("f", "alien"),
    ]
    assert [(r["reason"], r["received_ts"]) for r in world.rows(QUARANTINE)] == [
        ("duplicate", world.at(9.5))
    ]


def test_only_what_arrived_is_judged(world: Any) -> None:
    world.arrive(world.row("old", 5.5))
    world.clean(5, 6)
    for path in world.lake.files(RAW):
        world.lake.fs.rm_file(path)
    world.arrive(world.row("late", 5.7, received=7.5), world.row("old", 7.1))
    assert world.clean(7, 8).quarantined == {"duplicate": 1}
    assert [e["event_id"] for e in world.rows(EVENTS)] == ["old", "late"]


def test_a_run_killed_between_its_writes_is_finished_by_the_next(
    other_worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(world: Any) -> None:
        world.arrive(*(world.row(f"e{n}", 5 + n / 2, user_id=f"u{n % 2}") for n in range(6)))

    whole = other_worlds()
    fill(whole)
    whole.run(5, 8)

    killed = other_worlds()
    fill(killed)
    with monkeypatch.context() as patch:
        patch.setattr(spark_jobs.sequences, "write_sequences", _die)
        with pytest.raises(KeyboardInterrupt):
            killed.run(5, 8)
    Path(killed.lake.hour_path(EVENTS, killed.at(6))).unlink()
    assert killed.lake.covered(EVENTS) == []
    assert killed.files() != whole.files()
    killed.run(5, 8)
    assert killed.files() == whole.files()


def test_a_run_killed_between_its_files_loses_no_row(world: Any) -> None:
    world.arrive(world.row("e1", 5.1), world.row("e2", 6.1), world.row("no", 6.2, item_id="dune"))
    world.run(5, 7)
    old = world.files()
    late = [world.row(f"l{n}", 5.2 + n, received=7.2) for n in range(2)]
    world.arrive(*late, world.row("e1", 7.3))
    world.run(7, 8)
    new = world.files()
    written = sorted(path for path in new if new[path] != old.get(path) and "raw/" not in path)
    assert len(written) > 10
    for part in (written[::2], written[1::2]):
        for path in part:
            file = Path(world.lake.root, path)
            file.write_bytes(old[path]) if path in old else file.unlink()
        assert {"e1", "e2"} <= {event["event_id"] for event in world.rows(EVENTS)}
        world.run(7, 8)
        assert world.files() == new


def _die(*_: object) -> None:
    raise KeyboardInterrupt
