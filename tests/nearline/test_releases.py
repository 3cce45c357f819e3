import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nearline.errors import CorruptRelease, Overtaken, ReleaseRefused, UnknownRelease
from nearline.pointer import Pointer
from nearline.releases import ReleaseManifest, ReleaseStore

END = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(tmp_path / "releases")


def publish(
    store: ReleaseStore,
    content: str,
    parent: str | None = None,
    promoted: bool = True,
    end: datetime = END,
    metrics: dict[str, float] | None = None,
    base: str | None = None,
) -> str:
    manifest = ReleaseManifest(
        kind="hourly" if parent else "nightly",
        parent=parent,
        base=base or parent,
        window_start=end - timedelta(hours=1),
        window_end=end,
        promoted=promoted,
        reasons=[] if promoted else ["worse than popularity"],
        metrics=metrics or {},
    )
    with store.stage() as folder:
        (folder / "weights").write_text(content)
        return store.publish(folder, manifest)


def test_the_same_content_is_published_once(store: ReleaseStore) -> None:
    assert publish(store, "w") == publish(store, "w")
    assert len(store.manifests()) == 1
    assert [p for p in store.root.iterdir() if p.name.startswith(".staged")] == []


def test_another_verdict_on_the_same_content_is_another_release(store: ReleaseStore) -> None:
    refused = publish(store, "w", promoted=False)
    passed = publish(store, "w")
    assert passed != refused
    assert publish(store, "w", promoted=False) == refused
    assert [store.load(v).manifest.promoted for v in (refused, passed)] == [False, True]
    store.promote(passed)
    with pytest.raises(ReleaseRefused, match="the gate refused"):
        store.promote(refused)


def test_what_a_killed_run_left_staged_goes_and_what_another_stages_stays(
    store: ReleaseStore,
) -> None:
    left = store.root / ".staged-left"
    (left / "deep").mkdir(parents=True)
    with store.stage() as mine, store.stage() as other:
        assert (mine.is_dir(), other.is_dir(), left.exists()) == (True, True, False)


def test_nothing_is_active_before_the_first_promotion(store: ReleaseStore) -> None:
    publish(store, "w")
    assert store.active() is None


def test_a_child_of_the_active_release_is_promoted(store: ReleaseStore) -> None:
    night = publish(store, "night")
    store.promote(night)
    hour = publish(store, "hour", parent=night)
    store.promote(hour)
    assert (store.active(), store.previous()) == (hour, night)
    assert store.load(hour).manifest.base == night


def test_an_overtaken_child_is_refused(store: ReleaseStore) -> None:
    old, new = publish(store, "old"), publish(store, "new")
    store.promote(old)
    child = publish(store, "child", parent=old)
    store.promote(new)
    with pytest.raises(Overtaken, match="is active now"):
        store.promote(child)
    assert store.active() == new


def test_an_older_night_does_not_replace_a_newer_one(store: ReleaseStore) -> None:
    late, early = publish(store, "late"), publish(store, "early", end=END - timedelta(days=1))
    store.promote(late)
    hour = publish(store, "hour", parent=late)
    store.promote(hour)
    with pytest.raises(Overtaken, match=f"ends before the night {late}"):
        store.promote(early)
    assert store.active() == hour
    assert store.rollback(early) == early


def test_rollback_goes_back_one_and_then_stops(store: ReleaseStore) -> None:
    first, second = publish(store, "1"), publish(store, "2")
    store.promote(first)
    store.promote(second)
    assert store.rollback() == first
    with pytest.raises(ReleaseRefused, match="no earlier"):
        store.rollback()


def test_a_rollback_holds_until_another_release_is_promoted(store: ReleaseStore) -> None:
    night = publish(store, "night")
    store.promote(night)
    first = publish(store, "first", parent=night)
    store.promote(first)
    second = publish(store, "second", parent=first)
    store.promote(second)
    assert store.rollback(night) == night
    for version in (first, second):
        with pytest.raises(ReleaseRefused, match=f"rollback {version}` activates it again"):
            store.promote(version)
    other = publish(store, "other", parent=night)
    store.promote(other)
    left = {first: night, second: first}
    assert store.pointer() == Pointer(
        active=other, history=[night], withdrawn=[first, second], before=left
    )
    assert store.rollback(first) == first
    assert store.pointer() == Pointer(
        active=first,
        history=[night],
        withdrawn=[second, other],
        before={second: first, other: night},
    )


def line_of(store: ReleaseStore, *names: str) -> list[str]:
    """A night and hours after it, each of which went live."""
    versions: list[str] = []
    for name in names:
        versions.append(publish(store, name, parent=versions[-1] if versions else None))
        store.promote(versions[-1])
    return versions


def test_a_rollback_can_be_undone_and_done_again(store: ReleaseStore) -> None:
    night, first, second, third = line_of(store, "night", "first", "second", "third")
    before = store.pointer()
    assert store.rollback() == second
    assert store.rollback(night) == night
    assert store.pointer().withdrawn == [third, first, second]
    assert store.rollback(third) == third
    assert store.pointer() == before
    assert [store.rollback() for _ in range(3)] == [second, first, night]


def test_undoing_half_of_a_rollback_leaves_the_rest_withdrawn(store: ReleaseStore) -> None:
    night, first, second, third = line_of(store, "night", "first", "second", "third")
    store.rollback(night)
    assert store.rollback(second) == second
    assert store.pointer() == Pointer(
        active=second, history=[night, first], withdrawn=[third], before={third: second}
    )
    assert store.rollback() == first


def test_what_was_pruned_leads_nowhere(store: ReleaseStore) -> None:
    night, first, second = line_of(store, "night", "first", "second")
    store.rollback(night)
    assert store.prune(keep=1, used={second}) == [first]
    assert store.rollback(second) == second
    assert store.pointer() == Pointer(active=second, withdrawn=[night])


def test_a_rollback_to_the_active_release_changes_nothing(store: ReleaseStore) -> None:
    night = publish(store, "night")
    store.promote(night)
    assert store.rollback(night) == night
    assert store.pointer() == Pointer(active=night)


def test_nobody_rolls_back_to_what_the_gate_refused(store: ReleaseStore) -> None:
    store.promote(publish(store, "good"))
    with pytest.raises(ReleaseRefused, match="the gate refused"):
        store.rollback(publish(store, "bad", promoted=False))


def test_a_flipped_byte_is_refused_and_the_old_stays(store: ReleaseStore) -> None:
    good, bad = publish(store, "good"), publish(store, "bad")
    store.promote(good)
    (store.root / bad / "weights").write_text("bAd")
    with pytest.raises(CorruptRelease, match="weights was changed"):
        store.promote(bad)
    (store.root / bad / "weights").unlink()
    with pytest.raises(CorruptRelease, match="weights is missing"):
        store.promote(bad)
    assert store.active() == good


def test_no_bit_of_a_manifest_can_be_flipped_unnoticed(store: ReleaseStore) -> None:
    version = publish(store, "w")
    file, manifest = store.root / version / "manifest.json", store.load(version).manifest
    content = file.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            assert store.load(version).manifest == manifest
        except CorruptRelease:
            assert store.manifests() == []
    file.write_bytes(content)
    assert store.manifests() == [manifest]


def test_figures_say_whose_they_are_in_older_releases_too(store: ReleaseStore) -> None:
    night = publish(store, "night", metrics={"ndcg@10": 0.08})
    told = {"parent_ndcg@10": 0.15, "retention_ndcg@10": 0.07}
    hour = publish(store, "hour", parent=night, metrics=told)
    older = {"ndcg@10": 0.15, "retention_ndcg@10": 0.07}
    old_hour = publish(store, "old hour", parent=night, metrics=older)
    assert store.load(night).manifest.metrics == {"ndcg@10": 0.08}
    assert store.load(hour).manifest.metrics == told
    assert store.load(old_hour).manifest.metrics == told
    assert [m.metrics for m in store.manifests() if m.kind == "hourly"] == [told, told]


@pytest.mark.parametrize("version", ["nothing", ".lock", "../releases"])
def test_an_unknown_version_is_named(store: ReleaseStore, version: str) -> None:
    with pytest.raises(UnknownRelease):
        store.promote(version)


def test_a_release_that_the_gate_refused_never_goes_live(store: ReleaseStore) -> None:
    refused = publish(store, "shuffled", promoted=False)
    with pytest.raises(ReleaseRefused, match="worse than popularity"):
        store.promote(refused)
    assert store.active() is None


@pytest.mark.parametrize("left", [b"", b'{"active": "2026', b"\xff\xfe"])
def test_a_torn_pointer_is_told_of_and_written_anew_by_a_rollback(
    store: ReleaseStore, left: bytes
) -> None:
    night = publish(store, "night")
    store.promote(night)
    (store.root / "active.json").write_bytes(left)
    asking: list[Callable[[], object]] = [
        store.active,
        store.rollback,
        lambda: store.promote(night),
        lambda: store.prune(keep=1),
    ]
    for ask in asking:
        with pytest.raises(CorruptRelease, match=r"active.json .* is damaged.* rollback VERSION"):
            ask()
    assert store.rollback(night) == night
    assert store.pointer() == Pointer(active=night)


def test_a_release_is_on_disk_before_the_pointer_can_name_it(
    store: ReleaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        told.append(f"to {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    version = publish(store, "w")
    *files, folder, renamed, root = told
    assert sorted(files) == ["manifest.json", "weights"]
    assert folder.startswith(".staged-")
    assert (renamed, root) == (f"to {version}", store.root.name)


def test_pruning_keeps_what_is_used_elsewhere(store: ReleaseStore) -> None:
    days = [END - timedelta(days=n) for n in (2, 1, 0)]
    used, other, last = [publish(store, "night", end=day) for day in days]
    store.promote(last)
    assert store.prune(keep=1, used={used, "gone already"}) == [other]


def test_pruning_keeps_the_newest_and_what_is_still_of_use(store: ReleaseStore) -> None:
    lines = [publish(store, f"night {n}") for n in range(6)]
    versions = [manifest.version for manifest in store.manifests()]
    previous, night = versions[0], versions[1]
    store.promote(previous)
    store.promote(night)
    hour = publish(store, "hour", parent=night)
    store.promote(hour)
    gone = store.prune(keep=2)
    left = {manifest.version for manifest in store.manifests()}
    assert left.isdisjoint(gone)
    assert left | set(gone) == {*lines, hour}
    assert {night, hour} <= left
    assert previous in gone, "neither an ancestor nor the last one before"
    assert len(left) == len({night, hour} | set(sorted({*lines, hour})[-2:]))
    assert store.rollback() == night
    with pytest.raises(ReleaseRefused, match="no earlier"):
        store.rollback()


@pytest.fixture
def hours(store: ReleaseStore) -> list[str]:
    """A night and three hours of its line, all of which were live, after an older night."""
    store.promote(publish(store, "older", end=END - timedelta(days=1)))
    line = [publish(store, "night")]
    store.promote(line[0])
    for n in (1, 2, 3):
        line.append(publish(store, f"{n}", line[-1], end=END + timedelta(hours=n), base=line[0]))
        store.promote(line[-1])
    return line


@pytest.mark.parametrize("damaged", [1, 2])
def test_pruning_keeps_the_night_of_a_line_of_which_an_hour_cannot_be_read(
    store: ReleaseStore, hours: list[str], damaged: int
) -> None:
    (store.root / hours[damaged] / "manifest.json").write_text("{")
    assert len(store.prune(keep=1)) >= 1
    assert store.load(hours[0]).manifest.kind == "nightly"


def test_nothing_is_pruned_while_the_active_release_cannot_be_read(
    store: ReleaseStore, hours: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (store.root / hours[-1] / "manifest.json").write_text("{")
    assert store.prune(keep=1) == []
    assert f"no release is removed: {hours[-1]} is active and cannot be read" in caplog.text
    store.rollback()
    (gone,) = store.prune(keep=1)
    assert gone not in hours, "what the line came of is there still"


def test_a_manifest_that_cannot_be_read_is_told_with_what_to_do(store: ReleaseStore) -> None:
    version = publish(store, "w")
    (store.root / version / "manifest.json").write_text("{")
    with pytest.raises(
        CorruptRelease, match=r"is unreadable; roll back .*`nearline releases list`"
    ):
        store.load(version)
