"""When another night is wanted: whatever becomes of the hours, and without reading a model."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearline.errors import CorruptRelease
from nearline.lake import EVENTS, Lake
from nearline.releases import Drift, ReleaseManifest, ReleaseStore
from nearline.windows import HOUR, Window
from pipeline import steps

NIGHT = datetime(2026, 5, 1, tzinfo=UTC)


def hours(end: int) -> Window:
    return Window(NIGHT + (end - 1) * HOUR, NIGHT + end * HOUR)


def day(end: int) -> Window:
    return Window.trailing(NIGHT + end * HOUR, hours=24)


def publish(
    end: int, parent: str | None = None, *, changed: float | None = None, promoted: bool = True
) -> str:
    drift = None
    if changed is not None:
        drift = Drift(changed=changed, bound=0.25, users=9, hours=end, max_hours=36)
    manifest = ReleaseManifest(
        kind="hourly" if parent else "nightly",
        parent=parent,
        base=parent and (ReleaseStore.open().load(parent).manifest.base or parent),
        window_start=hours(end).start,
        window_end=hours(end).end,
        drift=drift,
        promoted=promoted,
        reasons=["it forgot"],
        metrics={},
    )
    store = ReleaseStore.open()
    with store.stage() as folder:
        (folder / "weights").write_text(f"{end} {changed}")
        return store.publish(folder, manifest)


@pytest.fixture
def night(home: Path) -> str:
    """A night that is live."""
    version = publish(0)
    ReleaseStore.open().promote(version)
    return version


def test_nothing_is_wanted_without_a_line_or_near_its_night(home: Path) -> None:
    assert steps.night_wanted(hours(99), None) is None
    night = publish(0)
    ReleaseStore.open().promote(night)
    assert steps.night_wanted(hours(35), None) is None
    assert steps.night_wanted(hours(1), publish(1, night, changed=0.25)) is None


@pytest.mark.usefixtures("night")
def test_an_old_night_is_replaced_also_where_the_hours_are_quiet() -> None:
    assert steps.night_wanted(hours(36), None) == day(36)


def test_a_night_from_which_no_distance_can_be_told_is_replaced(night: str) -> None:
    assert steps.night_wanted(hours(1), publish(1, night, changed=None)) == day(1)


def test_hours_that_the_gate_refuses_for_long_ask_by_their_drift(night: str) -> None:
    refused = publish(3, night, changed=0.26, promoted=False)
    assert steps.night_wanted(hours(3), refused) == day(3)


def test_without_another_fine_tune_the_live_one_tells_how_far_it_is(night: str) -> None:
    store, hour = ReleaseStore.open(), publish(4, night, changed=0.9)
    store.promote(hour)
    assert steps.night_wanted(hours(2), None) == day(4), "no night forgets what is learned"


def test_what_was_tuned_on_another_line_tells_nothing_of_the_new_night(night: str) -> None:
    far = publish(2, night, changed=0.9)
    assert steps.night_wanted(hours(2), far) == day(2)
    ReleaseStore.open().promote(publish(1))
    assert steps.night_wanted(hours(2), far) is None


def test_hours_that_went_live_beside_a_night_are_run_again_on_it(night: str) -> None:
    store, parent = ReleaseStore.open(), night
    for end in (1, 2, 3):
        parent = publish(end, parent, changed=0.1)
        store.promote(parent)
    assert steps.overtaken(parent) is None
    knows_all, newer = publish(3, changed=0.2), publish(1, changed=0.3)
    assert steps.overtaken(newer) is None, "it is not live"
    store.promote(newer)
    assert steps.overtaken(newer) == Window(hours(2).start, hours(3).end)
    (store.root / parent / "manifest.json").write_text("{")
    assert steps.overtaken(newer) is None, "the next hour makes up for it"
    store.promote(knows_all)
    assert steps.overtaken(knows_all) is None
    assert steps.overtaken(newer) is None, "it is live no more"


def test_where_nobody_can_tell_what_is_active_no_night_is_trained(
    night: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Window] = []
    monkeypatch.setattr("training.nightly.train_nightly", trained.append)
    Lake.open().mark_complete(EVENTS, hours(1), rows=1)
    (ReleaseStore.open().root / "active.json").write_text("{")
    for ask in (steps.train, steps.finetune):
        with pytest.raises(CorruptRelease, match="rollback VERSION"):
            ask(hours(1))
    assert trained == []
    assert ReleaseStore.open().rollback(night) == night
    steps.train(hours(1))
    assert len(trained) == 1


def test_a_night_that_cannot_be_read_is_replaced(night: str) -> None:
    store = ReleaseStore.open()
    hour = publish(1, night)
    store.promote(hour)
    (store.root / night / "manifest.json").write_text("{")
    assert steps.night_wanted(hours(2), None) == day(2)
    (store.root / hour / "manifest.json").write_text("{")
    assert steps.night_wanted(hours(2), None) == day(2)


def test_it_is_asked_again_until_it_is_known_to_have_been_asked(night: str) -> None:
    store = ReleaseStore.open()
    for end in (36, 37):  # a run that was killed before it had asked is made up for by the next
        assert steps.night_wanted(hours(end), None) == day(end)
    steps.night_asked(day(37).end.isoformat())
    assert [steps.night_wanted(hours(end), None) for end in (37, 72)] == [None, None]
    assert steps.night_wanted(hours(73), None) == day(73), "none came for as long as one may be old"
    steps.night_asked(day(73).end.isoformat())
    another = publish(74)
    store.promote(another)
    assert steps.night_wanted(hours(75), None) is None
    assert steps.night_wanted(hours(75), publish(75, another, changed=0.9)) == day(75)


def test_a_night_is_wanted_where_what_tells_of_the_last_one_is_damaged(
    night: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps.night_asked(day(36).end.isoformat())
    (home / "night_asked.json").write_text("{")
    assert steps.night_wanted(hours(37), None) == day(37)
    assert "night_asked.json is damaged" in caplog.text
    steps.night_asked(day(37).end.isoformat())
    assert steps.night_wanted(hours(38), None) is None


WANTED = """
import sys
from nearline.windows import Window
from pipeline import steps

print(steps.night_wanted(Window.parse(*sys.argv[1:]), None) is not None)
print({"torch", "feast"} & set(sys.modules))
"""


@pytest.mark.usefixtures("night")
def test_no_model_is_loaded_to_tell(home: Path) -> None:
    times = [hours(36).start.isoformat(), hours(36).end.isoformat()]
    done = subprocess.run(
        [sys.executable, "-c", WANTED, *times], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True", "set()"]
