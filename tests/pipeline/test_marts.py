"""Marts through real dbt: what a window means, and that a run publishes all of it or nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from nearline.domains import load_domain
from nearline.errors import MissingPartition, StepFailed
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.lake import EVENTS, Lake, hour_groups
from nearline.schema import EVENT_SCHEMA, EVENT_TS, ITEM_SCHEMA
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.dbt import run_dbt
from pipeline.marts import (
    EXPORTS,
    FEATURES,
    Export,
    MartReport,
    build_marts,
    domain_table,
    export,
    mart_names,
)
from spark_jobs.partials import KEYS, SCHEMAS, USER_HOURLY, USER_HOURLY_SCHEMA, hourly_partials

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(START, START + 40 * 24 * HOUR)
CATEGORIES = {"alien": ["horror", "space"], "brazil": ["space"], "casablanca": ["romance"]}
WEIGHTS = {"play": 1.0, "rating": 2.0}
# (hours after START, user, item, type, value)
STREAM = [
    (0.5, "ada", "alien", "play", 0.5),
    (0.6, "ada", "alien", "rating", 5.0),
    (0.7, "bob", "alien", "play", 1.0),
    (2.1, "ada", "brazil", "play", 0.25),
    (26.0, "bob", "casablanca", "rating", 0.5),
    (26.2, "bob", "brazil", "play", 0.0),
    (200.9, "ada", "casablanca", "play", 1.0),
    (725.0, "cyd", "brazil", "rating", 2.75),
    (959.5, "ada", "alien", "play", 0.75),
]


def write_shown(lake: Lake) -> None:
    """The lists that STREAM follows from, shown half an hour before; the first is of old times."""
    rows = [
        {
            "request_id": f"r{n}",
            "user_id": user,
            "surface": "home" if n % 2 else None,
            "item_ids": ["nothing", item],
            "sources": ["encoder", "trending"],
            "propensities": [1.0, 0.02] if n % 3 else None,
            "received_ts": START + timedelta(hours=hours - 0.5),
        }
        for n, (hours, user, item, _, _) in enumerate(STREAM)
    ]
    shown = pa.Table.from_pylist(rows, schema=IMPRESSION_SCHEMA)
    old = ("category", "page", "device", "propensities")
    for hour, part in hour_groups(shown, "received_ts"):
        lake.write_hour(IMPRESSIONS, hour, part if hour > START else part.drop_columns(old))


def write_stream(lake: Lake) -> None:
    events = pa.Table.from_pylist(
        [
            {
                "event_id": f"e{n}",
                "user_id": user,
                "item_id": item,
                "event_type": kind,
                "event_ts": START + timedelta(hours=hours),
                "value": value,
                "request_id": f"r{n}",
                "received_ts": START + timedelta(hours=hours),
            }
            for n, (hours, user, item, kind, value) in enumerate(STREAM)
        ],
        schema=EVENT_SCHEMA,
    )
    for hour, rows in hour_groups(events, EVENT_TS):
        lake.write_hour(EVENTS, hour, rows)
        categories = pa.array([CATEGORIES[i] for i in rows["item_id"].to_pylist()])
        weights = pa.array([WEIGHTS[kind] for kind in rows["event_type"].to_pylist()])
        told = rows.append_column("categories", categories).append_column("weight", weights)
        for dataset, partial in hourly_partials(told, hour).items():
            lake.write_hour(dataset, hour, partial, sort_by=KEYS[dataset])
    items = [
        {"item_id": i, "title": i, "categories": c, "created_ts": START, "available": True}
        for i, c in CATEGORIES.items()
    ]
    lake.write_snapshot("catalogue", pa.Table.from_pylist(items, schema=ITEM_SCHEMA))
    for dataset in SCHEMAS:
        lake.mark_complete(dataset, WINDOW, rows=0)
    write_shown(lake)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("NEARLINE_HOME", str(folder))
        settings.cache_clear()
        write_stream(Lake.open())
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="module")
def report(home: Path) -> MartReport:
    return build_marts(WINDOW)


def feature_rows(name: str, key: str) -> dict[tuple[str, int], dict[str, object]]:
    """Rows of features/<name> by key and hours from START to feature_ts."""
    lake = Lake.open()
    rows: dict[tuple[str, int], dict[str, object]] = {}
    for path in lake.files(f"features/{name}"):
        for row in pa.parquet.read_table(path, partitioning=None).to_pylist():
            rows[row[key], (row["feature_ts"] - START) // HOUR] = row
    return rows


def checksums() -> dict[str, str]:
    lake = Lake.open()
    return {p: lake.manifest(p).sha256 for each in EXPORTS for p in lake.files(each.dataset)}


def test_a_run_reports_what_it_built(report: MartReport) -> None:
    assert report.window == WINDOW
    assert report.models > 10
    assert report.tests > 20
    marts = {"marts/hourly_quality", "marts/hourly_clicks", "marts/sessions"}
    assert set(report.rows) == {*FEATURES.values(), *marts}
    assert Lake.open().covered("features/user_activity") == [WINDOW]


@pytest.mark.parametrize(("window", "hours"), [("1h", 1), ("24h", 24), ("7d", 168), ("30d", 720)])
@pytest.mark.usefixtures("report")
def test_counts_are_those_of_the_events_before_feature_ts(window: str, hours: int) -> None:
    for (user, at), row in feature_rows("user_activity", "user_id").items():
        seen = [e for e in STREAM if e[1] == user and at - hours <= e[0] < at]
        assert row[f"events_{window}"] == len(seen)
        assert row[f"active_hours_{window}"] == len({int(e[0]) for e in seen})
    for (item, at), row in feature_rows("item_popularity", "item_id").items():
        assert row[f"events_{window}"] == sum(
            e[2] == item and at - hours <= e[0] < at for e in STREAM
        )


@pytest.mark.usefixtures("report")
def test_the_newest_row_never_goes_stale() -> None:
    rows = feature_rows("user_activity", "user_id")
    for user in ("ada", "bob", "cyd"):
        first = int(min(e[0] for e in STREAM if e[1] == user)) + 1
        for at in range(first, 960):
            newest = rows[user, max(a for u, a in rows if u == user and a <= at)]
            for window, hours in (("1h", 1), ("24h", 24), ("7d", 168), ("30d", 720)):
                now = sum(e[1] == user and at - hours <= e[0] < at for e in STREAM)
                assert newest[f"events_{window}"] == now, (user, at, window)


@pytest.mark.usefixtures("report")
def test_features_of_one_hour() -> None:
    ada = feature_rows("user_activity", "user_id")["ada", 3]
    assert ada["positive_events_24h"] == 3
    assert ada["decayed_weight"] == pytest.approx(1 + 3 * 0.5 ** (2 / 24), abs=1e-5)
    assert ada["recency_seconds"] == 54 * 60
    alien = feature_rows("item_popularity", "item_id")["alien", 1]
    assert alien["mean_value_30d"] == pytest.approx((0.5 + 1 + 1 + 5) / (3 + 10))
    assert alien["user_touches_1h"] == 3
    assert alien["age_hours"] == 1
    trending = feature_rows("trending", "surface")["all", 27]
    assert trending["item_ids"] == ["casablanca", "alien", "brazil"]
    assert trending["scores"] == sorted(trending["scores"], reverse=True)  # type: ignore[type-var]
    affinity = feature_rows("user_category_affinity", "user_id")["ada", 1]
    assert affinity["categories"] == ["horror", "space"]
    assert affinity["affinities"] == [0.5, 0.5]


@pytest.mark.usefixtures("report")
def test_clicks_follow_what_was_shown() -> None:
    rows = [
        row
        for path in Lake.open().files("marts/hourly_clicks")
        for row in pa.parquet.read_table(path, partitioning=None).to_pylist()
    ]
    sums = {
        name: sum(row[name] for row in rows)
        for name in ("impressions", "clicks", "conversions", "explored_clicks")
    }
    assert sums == {"impressions": 18, "clicks": 9, "conversions": 0, "explored_clicks": 4}
    assert {(row["position"], row["source"]) for row in rows} == {(1, "encoder"), (2, "trending")}
    [first] = [r for r in rows if r["hour"] == START and r["surface"] == "home" and r["clicks"]]
    assert (first["position"], first["impressions"], first["clicks"]) == (2, 1, 1)
    assert (first["ctr"], first["debiased_ctr"]) == (1.0, 2.0)
    # shown at 25.5, clicked at 26.0
    [later] = [r for r in rows if r["hour"] == START + 26 * HOUR and r["surface"] == ""]
    assert (later["impressions"], later["clicks"], later["ctr"]) == (0, 1, None)


@pytest.mark.usefixtures("report")
def test_a_forgotten_user_gets_empty_features() -> None:
    bob = 26 + 720 + 1
    activity = feature_rows("user_activity", "user_id")["bob", bob]
    assert (activity["events_30d"], activity["last_event_ts"]) == (0, None)
    assert feature_rows("user_category_affinity", "user_id")["bob", bob]["categories"] == []


@pytest.mark.usefixtures("report")
def test_an_hour_alone_gives_the_bytes_of_the_bulk_run() -> None:
    before = checksums()
    for hour in (26, 959):
        build_marts(Window.of_hour(START + hour * HOUR))
        assert checksums() == before


@pytest.mark.usefixtures("report")
def test_a_failing_test_names_itself_and_publishes_nothing() -> None:
    lake, hour = Lake.open(), START + 959 * HOUR
    before = checksums()
    [path] = lake.files(USER_HOURLY, Window.of_hour(hour))
    good = pa.parquet.read_table(path, partitioning=None).select(USER_HOURLY_SCHEMA.names)
    odd = good.set_column(1, "event_type", pa.array(["sneeze"]))
    lake.write_hour(USER_HOURLY, hour, odd)
    try:
        with pytest.raises(StepFailed, match=r"event_types_are_known.* 1 rows") as caught:
            build_marts(Window.of_hour(hour))
    finally:
        lake.write_hour(USER_HOURLY, hour, good)
    assert "int_user_types" in str(caught.value)
    assert "event_type=sneeze, broken_rows=1" in str(caught.value)
    assert checksums() == before


@pytest.mark.usefixtures("report")
def test_a_day_file_hides_the_hours_of_its_day() -> None:
    lake, before, day = Lake.open(), checksums(), START.date()
    for dataset in SCHEMAS:
        hours = lake.files(dataset, Window(START, START + 24 * HOUR))
        if hours:
            # As compacting leaves it when it is killed before the hours are removed.
            tables = [pa.parquet.read_table(path, partitioning=None) for path in hours]
            pa.parquet.write_table(pa.concat_tables(tables), lake.day_path(dataset, day))
    build_marts(Window(START, START + 3 * HOUR))
    for dataset in SCHEMAS:
        Path(lake.day_path(dataset, day)).unlink(missing_ok=True)
    assert checksums() == before


@pytest.mark.usefixtures("report")
def test_unit_tests_of_the_sql_pass() -> None:
    outcome = run_dbt(WINDOW, "test", "--select", "test_type:unit")
    told = [(result.node.name, str(result.status)) for result in outcome.result.results]
    assert outcome.success, told
    assert {name for name, _ in told} == {
        "user_activity_sums_the_types",
        "user_habits_knows_sessions_across_hours",
        "item_conversion_is_drawn_to_the_site",
        "user_searches_fade_and_expire",
        "trending_orders_by_faded_weight",
        "hourly_clicks_follow_their_lists",
    }


@pytest.mark.usefixtures("report")
def test_hours_that_late_events_changed_are_published_again() -> None:
    lake, window = Lake.open(), Window.of_hour(START + 959 * HOUR)
    late, before = START + 940 * HOUR, checksums()
    row = {"user_id": "zoe", "event_type": "play", "hour": late, "events": 2, "items": 1}
    rows = pa.Table.from_pylist([row | {"last_event_ts": late}], schema=USER_HOURLY_SCHEMA)
    lake.write_hour(USER_HOURLY, late, rows)
    event = {"event_id": "l", "user_id": "zoe", "event_type": "play", "event_ts": late}
    lake.write_hour(EVENTS, late, pa.Table.from_pylist([event], schema=EVENT_SCHEMA))
    lake.mark_complete(EVENTS, window, rows=1, since=late)
    build_marts(window)
    assert feature_rows("user_activity", "user_id")["zoe", 941]["events_1h"] == 2
    assert lake.changed("features/user_activity", window) == Window(late, window.end)
    for dataset, schema in ((USER_HOURLY, USER_HOURLY_SCHEMA), (EVENTS, EVENT_SCHEMA)):
        lake.write_hour(dataset, late, schema.empty_table())
    build_marts(window)
    assert checksums() == before


@pytest.mark.usefixtures("home")
def test_hours_without_partials_are_refused() -> None:
    with pytest.raises(MissingPartition, match="partials/user_hourly"):
        build_marts(Window.of_hour(WINDOW.end))


def test_an_hour_that_lost_its_rows_loses_its_file(tmp_path: Path) -> None:
    lake, window = Lake(str(tmp_path)), Window(START, START + 2 * HOUR)
    rows = pa.table(
        {"user_id": ["ada", "bob"], "feature_ts": [START + HOUR, START + 2 * HOUR]},
        schema=pa.schema(
            [("user_id", pa.string()), EVENT_SCHEMA.field(EVENT_TS).with_name("feature_ts")]
        ),
    )
    to = Export("feat_x", "features/x", ())
    assert export(lake, to, rows, window) == 2
    assert len(lake.files("features/x")) == 2
    assert export(lake, to, rows.slice(1), window) == 1
    assert lake.files("features/x") == [lake.hour_path("features/x", START + HOUR)]


def test_marts_are_listed_without_starting_dbt() -> None:
    names = mart_names()
    assert {"dim_items", "fct_sessions", "fct_hourly_quality", "fct_hourly_clicks"} <= set(names)
    assert set(FEATURES) <= set(names)


@pytest.mark.parametrize("name", ["commerce", "entertainment", "social"])
def test_every_event_type_of_a_domain_reaches_the_sql(name: str) -> None:
    domain = load_domain(name)
    rows = {row["event_type"]: row for row in domain_table(domain).to_pylist()}
    assert {t: (r["positive"], r["weight"]) for t, r in rows.items()} == {
        t: (kind.positive, kind.weight) for t, kind in domain.event_types.items()
    }
