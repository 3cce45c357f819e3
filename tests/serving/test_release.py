from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nearline import bundle
from nearline.alike import Alike
from nearline.errors import CorruptRelease, NotReady
from nearline.item_index import ItemIndex
from nearline.sequence import ModelInput
from serving.active import ActiveRelease
from serving.metrics import Metrics
from serving.release import LoadedRelease, best

ITEMS = tuple("abcdefgh")


def loaded(world: Any, version: str, **how: Any) -> LoadedRelease:
    return LoadedRelease.load(world.releases.load(version), **how)


def following(world: Any) -> tuple[ActiveRelease, Metrics]:
    metrics = Metrics()
    return ActiveRelease.open(world.followed(), metrics), metrics


def spoil(world: Any, version: str, name: str, content: bytes) -> str:
    """Publish a copy of a release in which one file has another content, with its checksum."""
    release = world.releases.load(version)
    with world.releases.stage() as folder:
        for file in release.manifest.files:
            (folder / file).write_bytes((release.path / file).read_bytes())
        (folder / name).write_bytes(content)
        return str(world.releases.publish(folder, release.manifest))


def test_the_encoder_gives_what_the_model_computes(world: Any) -> None:
    version = world.publish(ITEMS)
    one, three = [[0]] * 2, [[0] * 3] * 2
    short = ModelInput(*(np.array(x, dtype=np.int64) for x in ([3], [1], [7], *one)))
    told = [1, 2, 8], [1, 2, 3], [1, 32, 2]
    long = ModelInput(*(np.array(x, dtype=np.int64) for x in (*told, *three)))
    vectors = loaded(world, version).encode([short, long])
    expected = [world.models[version].encode(*inputs) for inputs in (short, long)]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_top_is_exact_and_leaves_out_what_it_must(world: Any) -> None:
    release = loaded(world, world.publish([f"i{n}" for n in range(300)]))
    allowed = np.random.default_rng(0).random(300) < 0.8
    user = np.random.default_rng(1).normal(size=release.dim).astype(np.float32)
    rows, scores = release.top(user, 20, allowed)
    all_scores = release.matrix @ user
    expected = sorted(np.flatnonzero(allowed), key=lambda row: -all_scores[row])[:20]
    assert rows.tolist() == expected
    np.testing.assert_allclose(scores, all_scores[expected], atol=1e-6)


def indexed(world: Any, version: str, *, of: Callable[[np.ndarray], np.ndarray] = np.array) -> str:
    """Publish a copy of a release with an index, of its items or of others."""
    matrix = of(bundle.read_matrix(world.releases.load(version).path))
    path = world.releases.root / "index"
    ItemIndex.build(matrix, matrix[::50], seed=1).write(path)
    return spoil(world, version, bundle.ITEM_INDEX, path.read_bytes())


def test_a_release_with_an_index_answers_by_it(world: Any) -> None:
    version = world.publish([f"i{n}" for n in range(2000)])
    exact, release = loaded(world, version), loaded(world, indexed(world, version))
    assert exact.index is None
    assert release.index is not None
    allowed = np.random.default_rng(0).random(2000) < 0.8
    for user in exact.matrix[:20]:
        (rows, scores), (wanted, _) = (r.top(user, 20, allowed) for r in (release, exact))
        assert len({*rows.tolist()} & {*wanted.tolist()}) >= 19
        assert allowed[rows].all()
        np.testing.assert_allclose(scores, exact.matrix[rows] @ user, atol=1e-6)


def test_a_damaged_index_leaves_the_old_release_in_place(world: Any) -> None:
    active, _ = following(world)
    good = world.promote(ITEMS)
    active.refresh()
    bad = indexed(world, world.publish(ITEMS, seed=2))
    world.releases.promote(bad)
    path = world.releases.load(bad).path / bundle.ITEM_INDEX
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    active.refresh()
    assert active.pin().release.version == good


def test_an_index_of_other_items_is_refused(world: Any) -> None:
    version = indexed(world, world.publish(ITEMS), of=lambda matrix: matrix[1:])
    with pytest.raises(CorruptRelease, match="cannot be loaded: ValueError: item_index"):
        loaded(world, version)


def test_top_gives_no_more_than_is_left(world: Any) -> None:
    release = loaded(world, world.publish(ITEMS))
    allowed = np.array([False] * 5 + [True] * 3)
    rows, scores = release.top(np.ones(release.dim, dtype=np.float32), 50, allowed)
    assert set(rows.tolist()) == {5, 6, 7}
    assert np.isfinite(scores).all()
    nothing = release.top(np.ones(release.dim, dtype=np.float32), 50, np.zeros(8, dtype=bool))
    assert [len(found) for found in nothing] == [0, 0]


def test_equal_scores_come_in_row_order(world: Any) -> None:
    release = loaded(world, world.publish(ITEMS))
    everything = np.ones(len(ITEMS), dtype=bool)
    for limit in (3, len(ITEMS)):
        rows, _ = release.top(np.zeros(release.dim, dtype=np.float32), limit, everything)
        assert rows.tolist() == list(range(limit))


def test_an_encoder_that_is_not_there_is_named(world: Any) -> None:
    version = world.publish(ITEMS)
    with pytest.raises(CorruptRelease, match=r"no compressed encoder.*NEARLINE_ENCODER"):
        loaded(world, version, encoder="compressed")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (bundle.ENCODER, b"no onnx", "cannot be loaded"),
        (bundle.CONFIG, b"{}", "KeyError: 'length'"),
        (bundle.ITEM_IDS, b'["a"]', "1 item ids"),
        (bundle.ITEM_MATRIX, b"", "cannot be loaded"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    world: Any, name: str, content: bytes, told: str
) -> None:
    version = spoil(world, world.publish(ITEMS), name, content)
    with pytest.raises(CorruptRelease, match=told):
        loaded(world, version)


def test_a_release_that_tells_of_words_alone_is_served_without_new_items(world: Any) -> None:
    """Releases were made like this before items lent to one another."""
    words = np.ones((101, 8), dtype=np.float16)
    assert loaded(world, world.publish(ITEMS, words=words, lending=0)).content is None
    assert loaded(world, world.publish(ITEMS, words=words)).content is not None


def test_who_lends_must_be_the_items_of_the_release(world: Any) -> None:
    words = np.ones((101, 8), dtype=np.float16)
    version = world.publish(ITEMS, words=words, lending=len(ITEMS) + 1)
    with pytest.raises(CorruptRelease, match=r"\(9,\) lend of 8"):
        loaded(world, version)


def test_what_is_alike_must_be_of_the_items_of_the_release(world: Any) -> None:
    fewer = np.full((len(ITEMS) - 1, 8), -1, dtype=np.int32)
    version = world.publish(ITEMS, alike=Alike(fewer, np.zeros(fewer.shape, dtype=np.float32)))
    with pytest.raises(CorruptRelease, match="7 items, not 8, are like others"):
        loaded(world, version)


def test_without_a_release_nothing_can_be_pinned(world: Any) -> None:
    active, _ = following(world)
    active.refresh()
    with pytest.raises(NotReady, match="nearline train"):
        active.pin()


def test_a_corrupt_release_leaves_the_old_one_in_place(world: Any) -> None:
    active, metrics = following(world)
    good = world.promote(ITEMS)
    active.refresh()
    bad = spoil(world, world.publish(ITEMS, seed=2), bundle.ENCODER, b"no onnx")
    world.releases.promote(bad)
    active.refresh()
    active.refresh()
    assert active.pin().release.version == good
    assert b'nearline_refresh_failures_total{what="release"} 1.0' in metrics.text()
    better = world.promote(ITEMS, seed=3)
    active.refresh()
    assert active.pin().release.version == better


def test_a_file_changed_after_promotion_is_found(world: Any) -> None:
    active, _ = following(world)
    good = world.promote(ITEMS)
    active.refresh()
    changed = world.promote(ITEMS, seed=2)
    (world.releases.load(changed).path / bundle.POPULARITY).write_bytes(b"x")
    active.refresh()
    assert active.pin().release.version == good


FILES = [
    *(
        "config.json",
        "encoder.onnx",
        "event_types.json",
        "item_ids.json",
        "item_matrix.npy",
        "item_norms.npy",
    ),
    *("manifest.json", "popularity.npy"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_leaves_the_old_release_in_place(world: Any, name: str) -> None:
    active, _ = following(world)
    good = world.promote(ITEMS)
    active.refresh()
    bad = world.promote(ITEMS, seed=2)
    folder = world.releases.load(bad).path
    assert sorted(path.name for path in folder.iterdir()) == FILES
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    active.refresh()
    assert active.pin().release.version == good
    world.releases.rollback()
    with pytest.raises(CorruptRelease):
        world.releases.promote(bad)
    assert world.releases.active() == good


def test_a_pointer_that_is_damaged_leaves_the_old_release_in_place(
    world: Any, eventually: Any
) -> None:
    good = world.promote(ITEMS)
    with world.client() as client:
        (world.releases.root / "active.json").write_text("{")
        eventually(lambda: client.get("/v1/release").json()["version"] == good)
        assert client.get("/v1/trending").json()["release"] == good


def test_a_start_beside_a_damaged_pointer_says_so_and_what_to_do(
    world: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    version = world.promote(ITEMS)
    (world.releases.root / "active.json").write_text("{")
    with world.client() as client:
        for path in ("/readyz", "/v1/release", "/v1/trending"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert "active.json of the releases is damaged" in answer.json()["detail"]
            assert "rollback VERSION" in answer.json()["detail"]
        assert any("rollback VERSION" in record.getMessage() for record in caplog.records)
        world.releases.rollback(version)
        eventually(lambda: client.get("/readyz").json().get("release") == version)


def test_a_pointer_that_is_damaged_no_more_is_told_of_no_more(world: Any) -> None:
    active, _ = following(world)
    pointer = world.releases.root / "active.json"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text("{")
    with pytest.raises(CorruptRelease):
        active.refresh()
    with pytest.raises(NotReady, match="damaged"):
        active.pin()
    pointer.unlink()
    active.refresh()
    with pytest.raises(NotReady, match="no release is active"):
        active.pin()


def test_a_rollback_is_followed(world: Any) -> None:
    active, _ = following(world)
    first, second = world.promote(ITEMS), world.promote(ITEMS, seed=2)
    active.refresh()
    assert active.pin().release.version == second
    world.releases.rollback()
    active.refresh()
    assert active.pin().release.version == first


def test_a_new_catalogue_is_followed_without_loading_the_release_again(world: Any) -> None:
    active, _ = following(world)
    world.promote(ITEMS)
    world.catalogue(*({"item_id": i} for i in ITEMS))
    active.refresh()
    before = active.pin()
    assert before.catalogue.title("a") == "A"
    world.catalogue({"item_id": "a", "title": "Alien", "available": False}, {"item_id": "b"})
    active.refresh()
    after = active.pin()
    assert after.catalogue.title("a") == "Alien"
    assert after.shelf.on_offer.tolist() == [False, True] + [False] * 6
    assert after.release.user_encoder is before.release.user_encoder
    assert before.shelf.on_offer.all()


# Releases that stand in for a damaged one


def damage(world: Any, version: str) -> Callable[[], object]:
    """Change a file of a release; what is returned puts it right."""
    file = world.releases.load(version).path / bundle.POPULARITY
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    return lambda: file.write_bytes(content)


def test_a_start_beside_a_damaged_release_serves_the_newest_before_it_that_is_whole(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, good, bad, active = (world.promote(ITEMS, seed=seed) for seed in range(4))
    damage(world, bad)
    damage(world, active)
    follower, metrics = following(world)
    follower.refresh()
    assert follower.pin().release.version == good
    assert follower.stands_in_for == active
    assert b'nearline_refresh_failures_total{what="release"} 2.0' in metrics.text()
    assert f"release {active} was not taken over" in caplog.text
    assert f"release {good} stands in for {active}" in caplog.text


def test_the_active_release_answers_once_it_is_whole(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.active._RETRY_S", 0)
    good, active = world.promote(ITEMS), world.promote(ITEMS, seed=2)
    mend = damage(world, active)
    follower, _ = following(world)
    follower.refresh()
    assert follower.pin().release.version == good
    mend()
    follower.refresh()
    assert follower.pin().release.version == active
    assert follower.stands_in_for is None


def test_what_was_rolled_back_from_or_refused_stands_in_for_nothing(world: Any) -> None:
    good, harmful = world.promote(ITEMS), world.promote(ITEMS, seed=2)
    world.releases.rollback()
    active = world.promote(ITEMS, seed=3)
    refused = world.publish(ITEMS, seed=4, refused="worse than popularity")
    pointer = world.releases.pointer()
    assert (pointer.history, pointer.withdrawn) == ([good], [harmful])
    history = [good, refused, harmful]
    pointer.model_copy(update={"history": history}).write(world.releases.root / "active.json")
    damage(world, active)
    follower, _ = following(world)
    follower.refresh()
    assert follower.pin().release.version == good


def test_a_rollback_to_a_release_that_is_damaged_leaves_the_one_in_use_for_one_before(
    world: Any,
) -> None:
    good, damaged, harmful = (world.promote(ITEMS, seed=seed) for seed in range(3))
    follower, _ = following(world)
    follower.refresh()
    assert follower.pin().release.version == harmful
    world.releases.rollback()
    mend = damage(world, damaged)
    follower.refresh()
    assert (follower.pin().release.version, follower.stands_in_for) == (good, damaged)

    mend()
    world.releases.rollback(harmful)
    follower.refresh()
    world.releases.rollback(good)
    damage(world, good)
    follower.refresh()
    assert (follower.pin().release.version, follower.stands_in_for) == (harmful, good)
    alone, _ = following(world)
    alone.refresh()
    with pytest.raises(NotReady, match=f"{good} is active, but neither it nor one before it"):
        alone.pin()


def test_who_asks_is_told_which_release_stands_in(world: Any, eventually: Any) -> None:
    good, active = world.promote(ITEMS), world.promote(ITEMS, seed=2)
    damage(world, active)
    with world.client() as client:
        ready, told = client.get("/readyz").json(), client.get("/v1/release").json()
        listed = client.get("/v1/releases").json()["releases"]
        assert (ready["release"], ready["stands_in_for"]) == (good, active)
        assert (told["version"], told["stands_in_for"]) == (good, active)
        assert {each["version"]: each["active"] for each in listed} == {active: True, good: False}
        world.releases.rollback()
        eventually(lambda: client.get("/readyz").json()["stands_in_for"] is None)
        assert client.get("/readyz").json()["release"] == good


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 9])
def test_the_best_are_of_those_allowed_and_the_scores_stay(limit: int) -> None:
    scores = np.array([5, 1, 4, 4, 9, 2], dtype=np.float32)
    before = scores.copy()
    rows, found = best(scores, limit, np.array([True, False, True, True, False, False]))
    assert rows.tolist() == [0, 2, 3][:limit]
    assert found.tolist() == [5, 4, 4][:limit]
    np.testing.assert_array_equal(scores, before)


def test_where_nothing_is_allowed_nothing_is_best() -> None:
    rows, found = best(np.ones(3, dtype=np.float32), 2, np.zeros(3, dtype=bool))
    assert len(rows) == len(found) == 0
