"""A forgotten user is nowhere, nobody else is touched, and it may be killed anywhere."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from nearline.domains import load_domain
from nearline.intake import Forgotten, Impression, ImpressionLog, Journal, blanking, close_hours
from nearline.intake import forgotten as wishes
from nearline.lake import EVENTS, QUARANTINE, RAW, Lake
from nearline.schema import (
    EVENT_SCHEMA,
    EVENT_TS,
    FEATURE_TS,
    QUARANTINE_SCHEMA,
    RAW_SCHEMA,
    USER_ID,
)
from nearline.settings import settings
from nearline.sources.dataset import append_raw
from nearline.sources.landing import held_back_path
from nearline.windows import HOUR, Window
from pipeline import command, erasing, steps
from pipeline.forget import forget, remove_from_lake, remove_online
from pipeline.online import feature_store, materialize
from spark_jobs.sequences import SEQUENCE_SCHEMA
from spark_jobs.states import LIST_SCHEMA
from spark_jobs.tails import TAIL_SCHEMA
from spark_jobs.user_states import USER_STATES

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
NOW = T0 + timedelta(minutes=150)
WINDOW = Window(T0, T0 + 2 * HOUR)
ANN, BOB = 'ann "Q" ö-7f3a', "bob-51c2"
WAS = {ANN: 4, BOB: 3}
"""Events of each user in the first hours."""
COMMAND = typer.Typer()
COMMAND.command()(command.forget)


def event(user: str, n: int, at: datetime) -> dict[str, Any]:
    fields = {"event_id": f"{WAS[user]}{n}", "user_id": user, "item_id": f"i{n}"}
    return fields | {"event_type": "comment", "event_ts": at}


def raw(row: dict[str, Any], **given: Any) -> dict[str, Any]:
    arrived = {"received_ts": row[EVENT_TS], "source": "load"}
    return row | arrived | {EVENT_TS: row[EVENT_TS].isoformat()} | given


@pytest.fixture
def lake(home: Path, clean_lake: Callable[..., None]) -> Iterator[Lake]:
    """Two users in every place that knows of users; some of it compacted, some left by a kill."""
    feature_store.cache_clear()
    lake = Lake.open()
    rows = [
        event(u, n, T0 + n * timedelta(minutes=29))
        for u, count in WAS.items()
        for n in range(count)
    ]
    append_raw(lake, pa.Table.from_pylist([raw(row) for row in rows], schema=RAW_SCHEMA))
    clean_lake(
        lake, [r | {"received_ts": r[EVENT_TS]} for r in rows], {"i0": ["x"], "i1": []}, WINDOW
    )
    lake.compact_day(EVENTS, T0.date())
    refused = [raw(rows[0], reason="bot"), raw(rows[4], reason="bot")]
    lake.write_hour(QUARANTINE, T0, pa.Table.from_pylist(refused, schema=QUARANTINE_SCHEMA))
    write_tails_and_states(lake, rows)
    write_features(lake)
    Path(f"{lake.root}/features/data.parquet.0.tmp").write_text(ANN)
    pq.write_table(
        pa.Table.from_pylist([raw(event(u, 9, NOW + HOUR)) for u in WAS], schema=RAW_SCHEMA),
        held_back_path(),
    )
    with duckdb.connect(str(settings().duckdb_path)) as connection:
        connection.execute("create table marts as select ? as user_id", [ANN])
    write_journals()
    # A kill came between writing the day and removing its hours.
    shutil.copytree(f"{lake.root}/raw/dt=2026-03-01/hr=10", f"{lake.root}/keep")
    lake.compact_day(RAW, T0.date())
    os.renames(f"{lake.root}/keep", f"{lake.root}/raw/dt=2026-03-01/hr=10")
    yield lake
    feature_store.cache_clear()


def write_tails_and_states(lake: Lake, rows: list[dict[str, Any]]) -> None:
    tails = pa.Table.from_pylist(rows, schema=TAIL_SCHEMA)
    lake.write_day("partials/user_tail", T0.date(), tails)
    for bucket, user in enumerate(WAS):
        mine = [row for row in rows if row["user_id"] == user]
        table = pa.Table.from_pylist(mine, schema=TAIL_SCHEMA)
        lake.write_day(USER_STATES.bucket_name(bucket), T0.date(), table)
    listed = [{"bucket": n, "rows": count} for n, count in enumerate(WAS.values())]
    lake.write_day(USER_STATES.dataset, T0.date(), pa.Table.from_pylist(listed, schema=LIST_SCHEMA))


def write_features(lake: Lake) -> None:
    known = {FEATURE_TS: T0 + HOUR, "item_ids": ["i0"], "event_types": ["comment"]}
    table = [known | {USER_ID: u, "event_ts": [0], "values": [0.0]} for u in WAS]
    lake.write_hour(
        "features/user_sequence", T0, pa.Table.from_pylist(table, schema=SEQUENCE_SCHEMA)
    )
    sessions = pa.table(
        {
            "session_key": [f"{u}/1" for u in WAS],
            "user_id": list(WAS),
            "session_start": pa.array([T0] * 2, EVENT_SCHEMA.field(EVENT_TS).type),
        }
    )
    lake.write_day("marts/sessions", T0.date(), sessions)
    for name in ("activity", "habits", "category_affinity", "searches", "sequence"):
        lake.mark_complete(f"features/user_{name}", WINDOW, rows=0)
    for name in ("item_popularity", "item_conversion", "trending"):
        lake.mark_complete(f"features/{name}", WINDOW, rows=0)
    materialize(WINDOW)


def write_journals() -> None:
    def clock() -> datetime:
        return NOW - timedelta(minutes=20)

    journal = Journal(settings().intake, load_domain("entertainment"), late_hours=48, clock=clock)
    for user in WAS:
        row = event(user, 8, T0 + HOUR) | {"event_ts": (T0 + HOUR).isoformat()}
        journal.append([row, {"user_id": [user]}, user])
    journal.close()
    log = ImpressionLog(settings().intake / "impressions", clock=clock)
    for user in WAS:
        log.add(Impression("r", "user", "v", "live", ["i0"], [1.0], ["encoder"], user_id=user))
    log.close()
    close_hours(Window.of_hour(NOW), clock=lambda: NOW)


def texts(value: Any) -> Iterator[str]:
    """Every text in a value of a column."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def traces(home: Path, user: str) -> list[str]:
    """The files that hold a user's id: in their bytes, however escaped, or in a parquet column."""
    escaped = json.dumps(user)[1:-1]
    forms = {form.encode() for form in (user, escaped, json.dumps(escaped)[1:-1])}
    found = []
    for path in filter(Path.is_file, home.rglob("*")):
        held = any(form in path.read_bytes() for form in forms)
        if path.suffix == ".parquet":
            columns = pq.ParquetFile(path).read().to_pydict().values()
            held |= any(user in text for values in columns for text in texts(values))
        if held:
            found.append(str(path.relative_to(home)))
    return found


def others(home: Path) -> set[str]:
    """Where bob is, whatever of the online store is in its log."""
    return {name.removesuffix("-wal") for name in traces(home, BOB)}


def everything(lake: Lake) -> dict[str, bytes]:
    """What the lake and the journals hold."""
    roots = (Path(lake.root), settings().intake)
    return {
        str(path): path.read_bytes()
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and "forgotten" not in path.parts
    }


def clock() -> datetime:
    return NOW


def test_no_byte_of_a_forgotten_user_is_left(lake: Lake, home: Path) -> None:
    assert len(traces(home, ANN)) == 20
    bobs = others(home)
    _, [receipt] = forget([ANN], clock=clock)
    assert traces(home, ANN) == []
    assert others(home) == bobs
    assert {place: (each.parts, each.rows) for place, each in receipt.removed.items()} == {
        "events": (1, 4),
        "features/user_sequence": (1, 1),
        "held_back": (1, 1),
        "impressions": (1, 1),
        "intake": (1, 3),
        "intake/impressions": (1, 1),
        "marts/sessions": (1, 1),
        "online/user_sequence": (1, 1),
        "partials/user_category_hourly": (1, 1),
        "partials/user_hourly": (2, 2),
        "partials/user_session_hourly": (2, 2),
        "partials/user_state_rows/00": (1, 4),
        "partials/user_tail": (1, 4),
        "quarantine": (1, 1),
        # A hidden hour is a copy of three rows.
        "raw": (2, 10),
    }
    assert (
        json.loads(receipt.path.read_text())["user"]
        == receipt.user
        == wishes.keyed_hash("forgotten", ANN)
    )
    assert USER_STATES.files(lake, T0.date()) == [
        lake.day_path(USER_STATES.bucket_name(1), T0.date())
    ]
    assert not Forgotten.load().hidden(ANN)
    for path in lake.every_file():
        manifest = lake.manifest(path)
        assert manifest.rows == pq.ParquetFile(path).metadata.num_rows


def test_the_user_stays_away_when_hours_are_closed_and_loaded_again(lake: Lake, home: Path) -> None:
    again = lake.read(RAW, schema=RAW_SCHEMA)
    forget([ANN], clock=clock)
    close_hours(Window.of_hour(NOW), clock=clock)
    append_raw(lake, again)
    assert traces(home, ANN) == []
    later = raw(event(ANN, 7, NOW + HOUR))
    append_raw(lake, pa.Table.from_pylist([later], schema=RAW_SCHEMA))
    assert ANN in lake.read(RAW, schema=RAW_SCHEMA)[USER_ID].to_pylist()


def test_what_happens_after_the_wish_is_another_persons(lake: Lake) -> None:
    wish = wishes.ask(ANN, clock=clock)
    later = NOW + timedelta(minutes=1)
    append_raw(lake, pa.Table.from_pylist([raw(event(ANN, 7, later))], schema=RAW_SCHEMA))
    remove_from_lake()
    [receipt] = remove_online(clock)
    assert receipt.request == wish.request
    rows = lake.read(RAW, schema=RAW_SCHEMA).to_pylist()
    assert [row["event_id"] for row in rows if row[USER_ID] == ANN] == [f"{WAS[ANN]}7"]


class Killed(Exception): ...


def kill_at_drop(patch: pytest.MonkeyPatch, last: int | None) -> list[str]:
    """Let the removal die before the `last` part that it drops, if any; the parts it came to."""
    drops: list[str] = []
    for kind in (blanking.JournalFile, erasing.PartitionPart, erasing.HeldBack):

        def dropping(part: Any, since: Any, drop: Any = kind.drop) -> None:
            drops.append(part.path)
            if len(drops) == last:
                raise Killed
            drop(part, since)

        patch.setattr(kind, "drop", dropping)
    return drops


def test_killed_anywhere_and_run_again_it_ends_the_same(
    lake: Lake,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    backup = tmp_path_factory.mktemp("backup")
    wishes.ask(ANN, clock=clock)
    wishes.ask(BOB, clock=clock)
    shutil.copytree(home, backup, dirs_exist_ok=True)

    def outcome() -> Any:
        remove_from_lake()
        feature_store.cache_clear()
        told = [(r.user, r.removed) for r in remove_online(clock)]
        return told, everything(lake)

    def restore() -> None:
        for path in home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(backup, home, dirs_exist_ok=True)
        feature_store.cache_clear()

    with monkeypatch.context() as patch:
        drops = kill_at_drop(patch, None)
        expected = outcome()
    for last in range(1, len(drops) + 1, 3):
        restore()
        with monkeypatch.context() as patch:
            kill_at_drop(patch, last)
            with pytest.raises(Killed):
                remove_from_lake()
        assert outcome() == expected
    assert traces(home, ANN) == traces(home, BOB) == []


def test_a_step_that_writes_waits_for_the_removal(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, go_on, earlier = threading.Event(), threading.Event(), Window.of_hour(T0 - HOUR)

    def parts(lake: Lake) -> Any:
        searching.set()
        assert go_on.wait(60)
        return erasing.all_parts(lake)

    monkeypatch.setattr("pipeline.forget.all_parts", parts)
    wishes.ask(ANN, clock=clock)
    removal = threading.Thread(target=remove_from_lake)
    removal.start()
    assert searching.wait(60)
    step = threading.Thread(target=steps.close_hours, args=(earlier,))
    step.start()
    step.join(0.3)
    assert not any(done.covers(earlier) for done in lake.covered(RAW))
    go_on.set()
    removal.join(60)
    step.join(60)
    assert any(done.covers(earlier) for done in lake.covered(RAW))


def test_the_command_tells_what_it_removed_and_whom_it_did_not_find(lake: Lake, home: Path) -> None:
    more = home.parent / "more.txt"
    more.write_text(f"{BOB}\n\nnobody-9e1d\n")
    done = CliRunner().invoke(COMMAND, [ANN, "--file", str(more), "--json"])
    assert done.exit_code == 1
    receipts = json.loads(done.stdout)
    assert sorted(len(receipt["removed"]) for receipt in receipts) == [0, 15, 15]
    assert "nothing was found of user nobody-9e1d" in done.stderr
    assert traces(home, ANN) == traces(home, BOB) == traces(home, "nobody-9e1d") == []
    again = CliRunner().invoke(COMMAND, [])
    assert (again.exit_code, "request" in again.stdout) == (0, True)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("users", [[""], ["a\nb"], ["--file", "/nowhere"]])
def test_what_is_no_user_id_is_refused(users: list[str]) -> None:
    done = CliRunner().invoke(COMMAND, users)
    assert done.exit_code == 1
    assert type(done.exception).__name__ == "BadInput"
    assert wishes.pending() == []
