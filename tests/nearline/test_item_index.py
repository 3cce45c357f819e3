"""The index finds what an exact search finds, whatever is allowed."""

from pathlib import Path

import numpy as np
import pytest

from nearline.item_index import BEST, ItemIndex, nearest_rows

ITEMS, DIM = 6000, 16


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(60, DIM))
GROUP = RNG.integers(0, len(CENTRES), ITEMS)
MATRIX = unit(CENTRES[GROUP] + 0.5 * RNG.normal(size=(ITEMS, DIM)))
USERS = unit(MATRIX[RNG.integers(0, ITEMS, (40, 3))].sum(axis=1))
KINDS = {
    "all": np.ones(ITEMS, dtype=bool),
    "most": RNG.random(ITEMS) < 0.97,
    "half": RNG.random(ITEMS) < 0.5,
    "few": RNG.random(ITEMS) < 0.02,
    "less than wanted": np.arange(ITEMS) % 400 == 0,
    "one": np.arange(ITEMS) == 17,
    "some groups": GROUP < 5,
}


@pytest.fixture(scope="module")
def built() -> ItemIndex:
    return ItemIndex.build(MATRIX, USERS[:20], seed=1)


@pytest.fixture(scope="module")
def index(built: ItemIndex, tmp_path_factory: pytest.TempPathFactory) -> ItemIndex:
    """As serving has it: mapped from its file."""
    path = tmp_path_factory.mktemp("index") / "index"
    built.write(path)
    return ItemIndex.read(path, MATRIX)


def exact(vector: np.ndarray, limit: int, allowed: np.ndarray) -> list[int]:
    scores = MATRIX @ vector
    return sorted(np.flatnonzero(allowed), key=lambda row: -scores[row])[:limit]


def test_it_reads_a_part_and_finds_nearly_all(index: ItemIndex) -> None:
    assert index.probes <= index.lists.nlist // 4
    assert index.recall(USERS[20:]) >= 0.98


def test_recall_counts_what_is_missed(built: ItemIndex, tmp_path: Path) -> None:
    built.write(tmp_path / "index")
    narrow = ItemIndex.read(tmp_path / "index", MATRIX)
    narrow.lists.nprobe = 1
    assert narrow.recall(USERS[20:]) < built.recall(USERS[20:]) - 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 50, 300])
def test_what_is_allowed_is_found_as_an_exact_search_finds_it(
    index: ItemIndex, kind: str, limit: int
) -> None:
    allowed, hits, wanted = KINDS[kind], 0, 0
    for user in USERS[20:]:
        rows, scores = index.top(user, limit, allowed)
        expected = exact(user, limit, allowed)
        assert allowed[rows].all()
        assert len(set(rows.tolist())) == len(rows) == len(expected)
        np.testing.assert_allclose(scores, MATRIX[rows] @ user, atol=1e-6)
        assert (np.diff(scores) <= 0).all()
        hits, wanted = hits + len({*rows.tolist()} & {*expected}), wanted + len(expected)
    assert hits / wanted >= 0.98


def test_items_far_from_where_the_vector_points_are_found(index: ItemIndex) -> None:
    for user in USERS[20:]:
        far = np.argsort(CENTRES @ user)[:30]
        allowed = np.isin(GROUP, far)
        rows, _ = index.top(user, 50, allowed)
        assert len({*rows.tolist()} & {*exact(user, 50, allowed)}) >= 47


def test_nothing_allowed_is_nothing_found(index: ItemIndex) -> None:
    found = index.top(USERS[0], 10, np.zeros(ITEMS, dtype=bool))
    assert [len(each) for each in found] == [0, 0]


def test_the_nearest_rows_are_exact_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearline.item_index._CHUNK", 777)
    rows = nearest_rows(MATRIX, USERS[:3])
    everything = np.ones(ITEMS, dtype=bool)
    for found, user in zip(rows, USERS[:3], strict=True):
        assert {*found.tolist()} == {*exact(user, BEST, everything)}


def test_the_same_items_give_the_same_bytes(built: ItemIndex, tmp_path: Path) -> None:
    built.write(tmp_path / "one")
    ItemIndex.build(MATRIX, USERS[:20], seed=1).write(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_an_index_of_other_items_is_refused(built: ItemIndex, tmp_path: Path) -> None:
    built.write(tmp_path / "index")
    with pytest.raises(ValueError, match=r"6000, 16.*\(5999, 16\)"):
        ItemIndex.read(tmp_path / "index", MATRIX[1:])
