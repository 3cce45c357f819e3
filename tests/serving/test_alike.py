"""What is like the items touched last by what is said of it: a source where lists are ranked."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from nearline.alike import Alike
from nearline.lenders import Lenders
from nearline.ranking import COLUMNS
from nearline.releases import Ranking
from nearline.words import LONGEST, numbers
from serving import alike
from serving.alike import KeptAlike
from serving.catalogue import Entry
from training.ranking.examples import Examples
from training.ranking.learning import learn

BUCKETS = 100_000
TITLES = {
    "i0": "Red hat",
    "i1": "Red shoe",
    "i2": "Hat",
    "i3": "Scarf",
    "i4": "Red hat too",
    "i5": "?",
}
"""The last one says nothing: it has no word."""

ITEMS = tuple(TITLES)
ROWS = {item_id: row for row, item_id in enumerate(ITEMS)}
PATH = "/v1/users/ann/recommendations"


def told_words() -> np.ndarray:
    """The words of the items' titles, int64 (items, LONGEST)."""
    words = np.zeros((len(ITEMS), LONGEST), dtype=np.int64)
    for row, title in enumerate(TITLES.values()):
        found = numbers(title, None, None, buckets=BUCKETS)
        words[row, : len(found)] = found
    return words


def lenders() -> Lenders:
    return Lenders.of(told_words(), np.ones(len(ITEMS), dtype=bool), buckets=BUCKETS, share=0.5)


@pytest.fixture
def ranker() -> str:
    """A ranker that learned nothing: equal scores leave the candidates in their turns."""
    rng = np.random.default_rng(1)
    rows = np.full((40 * 20, len(COLUMNS)), np.nan, dtype=np.float32)
    found = Examples(rows, np.full(40, 20), rng.integers(0, 20, 40), np.arange(40))
    return str(learn(found, seed=1).model_to_string())


@pytest.fixture
def shop(world: Any, ranker: str) -> Any:
    """Six items of which five say something; ann touched i0 and then i5, which says nothing."""
    hour = timedelta(hours=1)
    world.store.put_sequence(
        "ann", [("i0", "play", world.now - 2 * hour), ("i5", "play", world.now - hour)]
    )
    world.put = lambda **changed: world.catalogue(
        *(
            {"item_id": item_id, "title": title} | changed.get(item_id, {})
            for item_id, title in TITLES.items()
        )
    )
    table = np.zeros((BUCKETS + 1, 8), dtype=np.float16)
    told = {"words": table, "lenders": lenders(), "ranker": ranker}
    world.promote_with = lambda wins: world.promote(
        ITEMS, **told, ranking=Ranking(wins=wins, reason="planted")
    )
    world.put()
    return world


def scores(shop: Any, **params: Any) -> dict[str, float]:
    """The items that the source proposed to ann, with its scores."""
    with shop.client() as client:
        response = client.get(PATH, params={"limit": 6, "explain": True} | params)
    assert response.status_code == 200, response.text
    found = response.json()
    told = {item["item_id"]: item["why"]["scores"] for item in found["items"]}
    because = {item["item_id"]: item["why"]["because"] for item in found["items"]}
    alike = {item_id: each["alike"] for item_id, each in told.items() if "alike" in each}
    assert all({tie["item_id"] for tie in because[item_id]} >= {"i0"} for item_id in alike)
    return alike


def test_what_is_like_the_items_touched_last_is_proposed_where_lists_are_ranked(shop: Any) -> None:
    shop.promote_with(True)
    found = scores(shop)
    assert sorted(found, key=found.__getitem__, reverse=True) == ["i4", "i2", "i1"]
    assert sum(found.values()) == pytest.approx(1), "i5 says nothing, and nothing is like it"


def test_without_a_ranker_it_proposes_nothing(shop: Any) -> None:
    shop.promote_with(False)
    assert scores(shop) == {}


def test_a_release_that_knows_no_content_proposes_nothing(shop: Any, ranker: str) -> None:
    shop.promote(ITEMS, ranker=ranker, ranking=Ranking(wins=True, reason="planted"))
    assert scores(shop) == {}


@pytest.mark.parametrize(
    ("changed", "asked", "left"),
    [
        ({"i4": {"available": False}}, {}, {"i1", "i2"}),
        ({"i4": {"attributes": {"hidden": True}}}, {}, {"i1", "i2"}),
        ({"i2": {"attributes": {"expires_ts": "2026-01-02T12:00:00Z"}}}, {}, {"i1", "i4"}),
        ({"i1": {"categories": ["shoes"]}}, {"category": "shoes", "fill": False}, {"i1"}),
        ({}, {"exclude": "i1"}, {"i2", "i4"}),
    ],
)
def test_the_rules_hold(
    shop: Any, changed: dict[str, Any], asked: dict[str, Any], left: set[str]
) -> None:
    shop.put(**changed)
    shop.promote_with(True)
    assert scores(shop, **asked).keys() == left


def test_a_new_item_that_was_touched_finds_what_is_like_it(shop: Any) -> None:
    shop.promote_with(True)
    before = scores(shop)
    hat = {"item_id": "new", "title": "Hat", "created_ts": "2026-01-01T00:00:00Z"}
    with shop.client() as client:
        assert client.put("/v1/items", json=hat).status_code == 200
        assert client.post("/v1/events", json=[shop.event("e1", "new")]).status_code == 200
    found = scores(shop)
    assert max(before, key=before.__getitem__) == "i4"
    assert max(found, key=found.__getitem__) == "i2"
    assert found["i1"] == before["i1"], "it is like i0 alone"


def kept() -> KeptAlike:
    return KeptAlike(Alike(lenders()), ROWS, buckets=BUCKETS)


def rows_of(known: KeptAlike, *entries: Entry) -> list[list[int]]:
    return [rows.tolist() for rows, _ in known.closest(entries)]


HAT, SHOE = Entry("i0", "Red hat"), Entry("i1", "Red shoe")


def test_an_item_is_looked_up_once_as_long_as_it_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = kept()
    first = known.closest([HAT, SHOE])
    monkeypatch.setattr(Alike, "closest", lambda *_: pytest.fail("it was looked up again"))
    again = known.closest([SHOE, replace(HAT, available=False)])
    assert [id(loan) for loan in again] == [id(loan) for loan in reversed(first)]
    with pytest.raises(pytest.fail.Exception):
        known.closest([replace(HAT, title="Blue hat")])


def test_an_item_that_says_something_else_is_like_others() -> None:
    known = kept()
    assert rows_of(known, HAT) == [[4, 2, 1]]
    assert rows_of(known, replace(HAT, title="Scarf")) == [[3]]
    assert rows_of(known, HAT, Entry("i5", "?")) == [[4, 2, 1], []]


def test_only_so_many_are_kept_and_the_one_not_asked_for_longest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alike, "MOST_KEPT", 2)
    known, scarf = kept(), Entry("i3", "Scarf")
    for entry in (HAT, SHOE, HAT, scarf):
        known.closest([entry])
    assert len(known) == 2
    asked: list[int] = []
    own = Alike.closest
    monkeypatch.setattr(
        Alike, "closest", lambda a, words, rows: asked.extend(rows.tolist()) or own(a, words, rows)
    )
    known.closest([HAT, scarf])
    assert asked == []
    assert len(known.closest([HAT, SHOE, scarf])) == 3, "more than are kept are found at once"
    assert asked == [1]
    assert len(known) == 2


def test_many_threads_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "MOST_KEPT", 2)
    known = kept()
    entries = [Entry(item_id, title) for item_id, title in TITLES.items()]
    expected = {entry.item_id: rows_of(kept(), entry)[0] for entry in entries}

    def ask(turn: int) -> bool:
        asked = [entries[(turn + n) % len(entries)] for n in range(3)]
        return rows_of(known, *asked) == [expected[entry.item_id] for entry in asked]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(2000)))
    assert len(known) == 2
