"""Columns and single items tell the same of the catalogue, whatever a loaded file holds."""

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nearline.schema import ITEM_SCHEMA
from nearline.sequence import Vocabulary, microseconds
from serving.catalogue import NEVER_US, Catalogue, Entry, Snapshot
from serving.filters import Filters
from serving.shelf import Shelf

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ROWS: list[dict[str, Any]] = [
    {"item_id": "a", "categories": ["x", "y"], "attributes": '{"price": 3, "color": "red"}'},
    {"item_id": "b", "categories": ["x"], "attributes": '{"price": "3", "color": ["red", "blue"]}'},
    {"item_id": "c", "categories": None, "attributes": None, "available": False},
    {"item_id": "d", "categories": ["y", "y"], "attributes": '{"price": true, "hidden": true}'},
    {"item_id": "e", "categories": [None], "attributes": "no JSON, price and hidden"},
    {"item_id": "f", "categories": [], "attributes": '["price", "hidden"]'},
    {"item_id": "g", "attributes": '{"expires_ts": "2026-01-02T12:00:00", "deep": {"price": 1}}'},
    {"item_id": "h", "attributes": '{"expires_ts": "soon", "größe": 2.5, "flag": true}'},
    {"item_id": "i", "attributes": json.dumps({"größe": 2.5, "price": 4.5})},
    {"item_id": "j", "attributes": json.dumps({"price": 10**400, "expires_ts": 20260101})},
    {"item_id": "k", "attributes": '{"price": -Infinity}'},
]
FILTERS = [
    Filters(categories=frozenset({"x"})),
    Filters(categories=frozenset({"y", "none"})),
    Filters(price_min=3),
    Filters(price_max=4),
    Filters(price_min=0, price_max=10),
    *(
        Filters(attributes=frozenset({(name, frozenset(values))}))
        for name, values in [
            ("color", ["red"]),
            ("color", ["blue", "green"]),
            ("größe", ["2.5"]),
            ("flag", ["true"]),
            ("price", ["3"]),
            ("deep", ["1"]),
            ("nobody", ["1"]),
        ]
    ),
    Filters(frozenset({"x"}), 1, 5, frozenset({("color", frozenset({"red"}))})),
]


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(pa.Table.from_pylist(ROWS, schema=ITEM_SCHEMA))


@pytest.mark.parametrize("filters", FILTERS, ids=range(len(FILTERS)))
def test_columns_match_what_items_match(snapshot: Snapshot, filters: Filters) -> None:
    one_by_one = [filters.match(Entry.of(entry_row(row))) for row in ROWS]
    assert snapshot.matching(filters).tolist() == one_by_one
    assert any(one_by_one) or not {name for name, _ in filters.attributes}.isdisjoint(
        {"deep", "nobody"}
    )


def entry_row(row: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(ITEM_SCHEMA.names) | row


def test_columns_tell_what_is_on_offer_and_until_when(snapshot: Snapshot) -> None:
    entries = [Entry.of(entry_row(row)) for row in ROWS]
    assert snapshot.on_offer.tolist() == [entry.on_offer for entry in entries]
    assert [e.item_id for e in entries if not e.on_offer] == ["c", "d"]
    assert snapshot.expires_us.tolist() == [entry.expires_us for entry in entries]
    assert {e.item_id for e in entries if e.expires_us != NEVER_US} == {"g"}


def test_a_shelf_follows_changes_row_by_row(snapshot: Snapshot) -> None:
    vocabulary = Vocabulary(("h", "a", "nowhere", "c"), ("play",))
    before = Shelf(vocabulary, Catalogue(snapshot))
    assert before.on_offer.tolist() == [True, True, False, False]
    changes = {
        "a": Entry("a", available=False),
        "c": Entry("c", categories=("x",)),
        "nowhere": Entry("nowhere", attributes={"expires_ts": NOON.isoformat()}),
        "new": Entry("new", created_us=5),
        "i": Entry("i", created_us=7),
    }
    after = Shelf(vocabulary, Catalogue(snapshot, changes), before=before)
    noon = microseconds(NOON)
    assert after.shown(noon - 1).tolist() == [True, False, True, True]
    assert after.shown(noon).tolist() == [True, False, False, True]
    assert after.matching(Filters(categories=frozenset({"x"}))).tolist() == [
        *(False, False, False, True)
    ]
    assert [e.item_id for e in after.new] == ["i", "new", "b", "e", "f", "g", "j", "k"]
    assert before.on_offer.tolist() == [True, True, False, False]


def puts(rng: random.Random, rounds: int) -> Iterator[list[Entry]]:
    """Items as a site puts them: new ones, known ones, and ones that were put before."""
    for _ in range(rounds):
        yield [
            Entry(
                rng.choice("abcdefghijklmnop"),
                categories=tuple(rng.sample("xyz", rng.randrange(3))),
                attributes=rng.choice([{}, {"hidden": True}, {"expires_ts": NOON.isoformat()}]),
                available=rng.random() < 0.8,
                created_us=rng.randrange(9),
            )
            for _ in range(rng.randrange(4))
        ]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_brought_up_to_a_state_is_what_is_made_of_it(
    snapshot: Snapshot, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.shelf.MOST_NEW", 4)
    vocabulary = Vocabulary(("h", "a", "nowhere", "c", "p"), ("play",))
    catalogue, wanted = Catalogue(snapshot), Filters(categories=frozenset({"x"}))
    shelf, rng = Shelf(vocabulary, catalogue), random.Random(seed)
    for entries in puts(rng, 12):
        before, catalogue = shelf, catalogue.put(entries)
        shelf = Shelf(vocabulary, catalogue, before=before)
        for each in (shelf, before) if rng.random() < 0.5 else ():
            made = Shelf(vocabulary, Catalogue(snapshot, each.catalogue.changes))
            assert each.new == made.new
            assert each.matching(wanted).tolist() == made.matching(wanted).tolist()
            for now_us in (0, microseconds(NOON)):
                assert each.shown(now_us).tolist() == made.shown(now_us).tolist()


def test_a_shelf_judges_only_what_was_put_since(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    monkeypatch.setattr(Filters, "match", lambda _, entry: judged.append(entry.item_id) or True)
    vocabulary, catalogue = Vocabulary(tuple("abcdef"), ("play",)), Catalogue(snapshot)
    shelf = Shelf(vocabulary, catalogue)
    for put in ("abc", "b", "", "ef"):
        catalogue = catalogue.put(Entry(item_id) for item_id in put)
        shelf = Shelf(vocabulary, catalogue, before=shelf)
        judged.clear()
        shelf.matching(Filters(price_max=1))
        assert "".join(judged) == put


def test_a_state_tells_what_was_put_since_another(snapshot: Snapshot) -> None:
    first = Catalogue(snapshot)
    second = first.put([Entry("a"), Entry("n", title="old")])
    third = second.put([Entry("n", title="new")])
    assert third.since(second.mark) == [Entry("n", title="new")]
    assert third.since(first.mark) == [Entry("a"), Entry("n", title="new")]
    assert third.since(third.mark) == []
    assert (second.changes["n"].title, second.since(third.mark)) == ("old", None)
    assert third.since(Catalogue(snapshot).mark) is third.since(None) is None


def test_without_a_catalogue_every_row_is_shown() -> None:
    shelf = Shelf(Vocabulary(("a", "b"), ("play",)), Catalogue())
    assert shelf.shown(0).tolist() == [True, True]
    assert shelf.matching(FILTERS[0]).tolist() == [False, False]
    assert shelf.new == []


def test_items_alike_share_categories(snapshot: Snapshot) -> None:
    changes = {"z": Entry("z", categories=("x", "y")), "b": Entry("b")}
    catalogue = Catalogue(snapshot, changes)
    assert catalogue.alike("a") == {"z": 1.0}
    assert Catalogue(snapshot).alike("a") == {"b": 0.5}
    assert catalogue.alike("nowhere") == catalogue.alike("e") == {}


def test_few_of_many_that_share_a_category_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.catalogue.MOST_ALIKE", 3)
    monkeypatch.setattr("serving.catalogue.MOST_DECODED", 5)
    rows = [{"item_id": f"i{n}", "categories": ["x"]} for n in range(100)]
    snapshot = Snapshot(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))
    best_last = np.arange(100.0)
    assert Catalogue(snapshot).alike("i0", then=best_last) == dict.fromkeys(
        ("i99", "i98", "i97"), 1.0
    )
    assert len(snapshot._decoded) == 1
    for n in range(100):
        assert snapshot.at(n).item_id == f"i{n}"
    assert len(snapshot._decoded) <= 5


def test_an_item_is_the_same_in_any_order_of_asking(snapshot: Snapshot) -> None:
    for order in itertools.islice(itertools.permutations("abc"), 3):
        found = [snapshot.entry(item_id) for item_id in order]
        assert [entry.item_id for entry in found if entry] == list(order)
    assert snapshot.entry("nowhere") is None


def test_words_come_longest_first_and_of_equals_the_last() -> None:
    rows: list[dict[str, Any]] = [
        {"item_id": "a", "title": "one two three"},
        {"item_id": "b"},
        {"item_id": "c", "title": "one", "categories": ["x", "y"], "text": "three four five"},
        {"item_id": "d", "title": "one two", "text": None, "categories": ["x"]},
        {"item_id": "e", "text": "one"},
    ]
    told = Snapshot(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)).words()
    assert [words.item_id for words in told] == ["c", "d", "a", "e", "b"]


def test_columns_take_so_many_bytes_and_those_used_last_stay(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.columns.MOST_BYTES", 12)
    made: list[float | None] = []

    def matching(_: Snapshot, filters: Filters) -> np.ndarray:
        made.append(filters.price_max)
        return np.ones(len(ROWS), dtype=bool)

    monkeypatch.setattr(Snapshot, "matching", matching)
    shelf = Shelf(Vocabulary(tuple("abcdef"), ("play",)), Catalogue(snapshot))
    for price in (1, 2, 1, 3, 1, 2):
        assert shelf.matching(Filters(price_max=price)).nbytes == 6
    assert made == [1, 2, 3, 2]
