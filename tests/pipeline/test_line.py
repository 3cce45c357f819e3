"""The line of releases: hours one by one, together, again, at once, and overtaken by a night."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nearline.lake import EVENTS, Lake
from nearline.pushed import pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.schema import EVENT_SCHEMA
from nearline.windows import HOUR, Window
from pipeline import steps
from pipeline.runs import triggering_window
from tests.pipeline import hours
from tests.pipeline.hours import HISTORY, Kill, Meeting, Site, hour

pytestmark = pytest.mark.slow
TWO = Window(hour(0).start, hour(1).end)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a site whose night is live, and two hours more."""
    home = tmp_path_factory.mktemp("begun")
    assert Site(home, "sqlite").run(hours.build, 2) == 0
    return home


@pytest.fixture
def site(begun: Path, tmp_path: Path) -> Site:
    return Site(shutil.copytree(begun, tmp_path / "home"), "sqlite")


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    folder = tmp_path / "meeting"
    folder.mkdir()
    return folder


def line(site: Site) -> list[ReleaseManifest]:
    """The active release and its ancestors, oldest first; whole, and all of it online."""
    with site.entered():
        store, found = ReleaseStore.open(), []
        version = store.active()
        assert pushed() == version
        for vectors in hours.vectors().values():
            assert {release for release, _ in vectors.values()} == {version}
        while version is not None:
            store.load(version).verify()
            found.insert(0, store.load(version).manifest)
            version = found[0].parent
        return found


def test_hours_that_arrive_together_are_one_release(site: Site) -> None:
    told = [{"start": w.start.isoformat(), "end": w.end.isoformat()} for w in (hour(1), hour(0))]
    events = {"features": [SimpleNamespace(extra=extra) for extra in told]}
    together = triggering_window({"triggering_asset_events": events})
    assert site.run(hours.run_hour, together) == 0
    night, live = line(site)
    assert (live.parent, live.window) == (night.version, TWO)


def test_an_hour_that_was_missed_is_made_up_for(site: Site) -> None:
    assert site.run(hours.run_hour, hour(1)) == 0
    assert [manifest.window for manifest in line(site)[1:]] == [TWO]


def test_an_hour_is_learned_again_only_where_it_has_changed(site: Site) -> None:
    for _ in range(2):
        assert site.run(hours.run_hour, hour(0)) == 0
    assert [manifest.window for manifest in line(site)[1:]] == [hour(0)]
    with site.entered():
        lake = Lake.open()
        rows = lake.read(EVENTS, hour(0), schema=EVENT_SCHEMA)
        lake.write_hour(EVENTS, hour(0).start, rows[:-1])
    assert site.run(hours.run_hour, hour(0)) == 0
    assert [manifest.window for manifest in line(site)[1:]] == [hour(0), hour(0)]


def was_active(site: Site) -> Iterator[ReleaseManifest]:
    """Every release that the pointer has named, oldest first."""
    with site.entered():
        store = ReleaseStore.open()
        for version in [*store.pointer().history, store.active()]:
            yield store.load(version).manifest


@pytest.mark.parametrize("place", ["nearline.releases:ReleaseStore.publish", "pipeline.steps:push"])
def test_two_runs_of_one_hour_make_one_release(site: Site, meeting: Path, place: str) -> None:
    trap = Meeting(place, meeting)
    runs = [site.start(hours.run_hour, hour(0), trap=trap) for _ in range(2)]
    assert [run.join() or run.exitcode for run in runs] == [0, 0]
    night, live = line(site)
    assert (live.kind, live.parent, live.window) == ("hourly", night.version, hour(0))
    assert [manifest.version for manifest in was_active(site)] == [night.version, live.version]


def test_two_runs_at_once_do_not_both_go_live(site: Site, meeting: Path) -> None:
    """Both have made a release of the night; one of them has to begin anew."""
    trap = Meeting("pipeline.steps:push", meeting)
    runs = [site.start(hours.run_hour, window, trap=trap) for window in (hour(0), TWO)]
    assert [run.join() or run.exitcode for run in runs] == [0, 0]
    night, first, *rest = line(site)
    assert [manifest.version for manifest in was_active(site)] == [
        manifest.version for manifest in (night, first, *rest)
    ]
    assert [each.window for each in (first, *rest)] in ([TWO], [hour(0), hour(1)])


def test_a_rollback_holds_until_the_next_hour_goes_live(site: Site) -> None:
    assert site.run(hours.run_hour, hour(0)) == 0
    night = line(site)[0]
    with site.entered():
        assert ReleaseStore.open().rollback() == night.version
    for again in (hour(0), hour(0)):
        assert site.run(hours.run_hour, again) == 0
        assert [manifest.version for manifest in line(site)] == [night.version]
    assert site.run(hours.run_hour, hour(1)) == 0
    _, another = line(site)
    assert (another.parent, another.window) == (night.version, TWO)


def tune_before_a_night() -> None:
    """An hour up to the push, then a night, then the rest: what `run_again` is told."""
    version = steps.finetune(hour(0))
    assert version is not None
    assert steps.overtaken(version) is None, "its parent is active still"
    steps.promote(hours.publish_night(HISTORY, seed=2))
    assert not steps.promote(version)
    assert steps.overtaken(version) == hour(0)
    again = steps.finetune(hour(0))
    assert again is not None
    assert steps.promote(again)
    assert steps.overtaken(again) is None, "it is active"
    ReleaseStore.open().rollback()
    assert steps.overtaken(again) is None, "it was rolled back"


def test_the_hours_of_an_overtaken_release_are_to_be_run_again(site: Site) -> None:
    assert site.run(tune_before_a_night) == 0


def overtaken_hour() -> None:
    """An hour that a night overtook: what becomes of it up to `run_again`."""
    version = steps.finetune(hour(0))
    assert version is not None
    steps.promote(hours.publish_night(HISTORY, seed=2))
    assert not steps.promote(version)
    assert steps.overtaken(version) == hour(0)


def night_beside_an_hour() -> None:
    """A night that goes live after an hour that it does not know, up to `run_again`."""
    hours.run_hour(hour(0))
    night = hours.publish_night(HISTORY, seed=2)
    steps.promote(night)
    assert steps.overtaken(night) == hour(0)


@pytest.mark.parametrize("run", [overtaken_hour, night_beside_an_hour])
def test_hours_that_a_killed_run_did_not_tell_of_are_learned_by_the_next(
    site: Site, run: Callable[[], None]
) -> None:
    kill = Kill("pipeline.steps:overtaken", "after")
    assert site.run(run, trap=kill) == -signal.SIGKILL
    assert site.run(hours.run_hour, hour(1)) == 0
    night, live = line(site)
    assert (night.kind, live.parent, live.window) == ("nightly", night.version, TWO)


def test_an_hour_goes_live_while_a_night_is_trained_and_again_on_that_night(
    site: Site, meeting: Path
) -> None:
    """The night waits among its passes for the hour to be over: nothing makes the hour wait."""
    night_trap = Meeting("training.lesson:Lesson.most", meeting)
    night = site.start(hours.run_night, Window.of_hour(HISTORY.end - HOUR), trap=night_trap)
    hour_trap = Meeting("pipeline.steps:push_active", meeting)
    assert site.start(hours.run_hour, hour(0), trap=hour_trap).join() is None
    assert night.join() or night.exitcode == 0
    before, beside, *_ = was_active(site)
    newest, live = line(site)
    assert (beside.parent, beside.window) == (before.version, hour(0))
    assert (newest.kind, newest.window_end) == ("nightly", HISTORY.end)
    assert newest.version != before.version
    assert (live.parent, live.window) == (newest.version, hour(0))


def overtaken_by_a_night(until: Window) -> None:
    """Run the hour; before it pushes, a night goes live that has learned up to the window's end."""
    real = steps.push

    def night_first(version: str) -> int:
        steps.push = real
        night = hours.publish_night(Window(HISTORY.start, until.end), seed=2)
        steps.push(night)
        steps.promote(night)
        return real(version)

    steps.push = night_first
    hours.run_hour(hour(0))


def test_an_hour_that_a_night_overtook_is_made_again_on_the_new_line(site: Site) -> None:
    first_night = line(site)[-1].version
    assert site.run(overtaken_by_a_night, HISTORY) == 0
    night, live = line(site)
    assert night.version != first_night
    assert (live.kind, live.window, live.base) == ("hourly", hour(0), night.version)


def test_an_hour_that_the_new_night_knows_is_left_to_it(site: Site) -> None:
    assert site.run(overtaken_by_a_night, hour(0)) == 0
    (night,) = line(site)
    assert (night.kind, night.window_end) == ("nightly", hour(0).end)
