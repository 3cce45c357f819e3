"""Search by keywords, through the real app."""

from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest

from nearline.schema import ITEM_SCHEMA
from serving.catalogue import Catalogue, Entry, Snapshot
from serving.filters import Filters
from serving.reasons import Reason
from serving.search import SearchIndex

FILMS = {
    "i0": ("Star Wars", ["space"], "A farm boy leaves home."),
    "i1": ("Return of the Jedi", ["space"], "The star wars end."),
    "i2": ("A Star Is Born", ["music"], None),
    "i3": ("Amélie", ["romance"], "A waitress in Paris, far from any star."),
    "i4": ("Born Free", ["animals"], 'Lions "AND" men; NOT wars*'),
    "i5": ("Hidden Star Wars", ["space"], None),
}


@pytest.fixture
def client(world: Any) -> Any:
    world.catalogue(
        *(
            {"item_id": i, "title": t, "categories": c, "text": text}
            | ({"attributes": {"hidden": True}} if i == "i5" else {})
            for i, (t, c, text) in FILMS.items()
        )
    )
    world.promote(tuple(FILMS))
    with world.client() as found:
        yield found


def find(client: Any, **params: Any) -> list[str]:
    response = client.get("/v1/search", params=params)
    assert response.status_code == 200, response.text
    assert response.json()["source"] == "search"
    return [item["item_id"] for item in response.json()["items"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("star wars", ["i0", "i1"]),
        ("STAR   wars!", ["i0", "i1"]),
        ("sta", ["i2", "i0", "i1", "i3"]),
        ("space", ["i0", "i1"]),
        ("amelie", ["i3"]),
        ('"AND" NOT', ["i4"]),
        ("lions", ["i4"]),
        ("zebras unheard", []),
        ("!?*", []),
        ("' OR 1=1 --", []),
    ],
)
def test_words_find_items(client: Any, words: str, expected: list[str]) -> None:
    found = find(client, q=words)
    assert found[:1] == expected[:1]
    assert sorted(found) == sorted(expected)


def test_where_no_item_has_every_word_some_are_enough(client: Any) -> None:
    answer = client.get("/v1/search?q=amelie+lions").json()
    assert {item["item_id"] for item in answer["items"]} == {"i3", "i4"}
    assert answer["reason"] == Reason.ANY_WORD.value


def test_filters_hold_for_what_is_found(client: Any) -> None:
    assert find(client, q="star", category="space", fill=False) == ["i0", "i1"]
    assert find(client, q="star", exclude="i0", category="space", fill=False) == ["i1"]
    answer = client.get("/v1/search?q=star&category=music").json()
    assert [item["matches"] for item in answer["items"]] == [True, False, False, False]


@pytest.mark.parametrize("words", ["zebras unheard", "!?*"])
def test_a_search_without_a_hit_says_so(client: Any, words: str) -> None:
    answer = client.get("/v1/search", params={"q": words}).json()
    assert (answer["items"], answer["reason_code"], answer["filled"]) == ([], "no_hit", None)


def test_a_search_that_finds_few_is_not_called_too_short(client: Any) -> None:
    answer = client.get("/v1/search?q=jedi").json()
    assert (len(answer["items"]), answer["reason"], answer["filled"]) == (1, None, None)


def test_a_rare_item_is_found_behind_many_that_are_not_wanted(
    world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.search.MOST_FOUND", 1)
    assert find(client, q="star", category="romance", fill=False) == ["i3"]
    new = {"item_id": "n", "title": "x", "text": "star", "created_ts": "2026-01-01T00:00:00Z"}
    client.put("/v1/items", json=new | {"categories": ["rare"]})
    assert find(client, q="star", category="rare", fill=False) == ["n"]


def test_of_many_items_with_a_common_word_what_was_put_and_the_shortest_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.search.MOST_SCORED", 3)
    titles = {f"i{n}": "star " + "of " * (n % 5) + "old" for n in range(10)}
    index, state = SearchIndex(tmp_path), snapshot(**titles)
    index.follow(state)
    put = state.put([Entry("n", title="Star, and a long title of a new item")])
    found = [item_id for item_id, _ in index.find("star", put, every=True)]
    assert found == ["i0", "i5", "n"]
    found = [item_id for item_id, _ in index.find("star", put, every=False)]
    assert found == ["i0", "i5", "n"]


def test_where_some_words_are_enough_what_has_a_rare_one_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.search.MOST_SCORED", 2)
    titles = {f"i{n}": "star" for n in range(9)}
    titles |= {"i3": "a long title with a zebra in it", "i7": "the star of zebras in the zoo"}
    index, state = SearchIndex(tmp_path), snapshot(**titles)
    index.follow(state)

    pairs = index.find("star zebra unheard", state, every=False)
    assert [item_id for item_id, _ in pairs] == ["i7", "i3", "i0", "i1"]


def test_the_users_taste_orders_what_words_find_alike(world: Any) -> None:
    ids = [f"i{n}" for n in range(9)]
    world.catalogue(*({"item_id": i, "title": "Song"} for i in ids))
    release = world.promote(ids)
    matrix = world.models[release].items[1:]
    world.store.put_vector("ann", release, matrix[7], world.now)
    world.store.put_sequence("ann", [("i7", "play", world.now - timedelta(days=1))])
    order = sorted(ids, key=lambda i: -float(matrix[int(i[1:])] @ matrix[7]))
    with world.client() as client:
        assert find(client, q="song", user_id="ann") == order
        assert find(client, q="song", user_id="nobody") == find(client, q="song") == ids


def test_what_is_put_is_found_at_once_under_its_new_words_alone(
    world: Any, client: Any, eventually: Any
) -> None:
    def item(item_id: str, title: str) -> dict[str, Any]:
        return {"item_id": item_id, "title": title, "created_ts": "2026-01-01T00:00:00Z"}

    client.put("/v1/items", json=[item("i2", "Zebra"), item("new", "Zebra two")])
    assert find(client, q="zebra") == ["i2", "new"]
    assert find(client, q="born") == ["i4"]
    client.put("/v1/items", json=item("new", "Gnu"))
    assert find(client, q="zebra") == ["i2"]
    world.catalogue({"item_id": "i0", "title": "Other"}, {"item_id": "i1", "title": "Wars"})
    eventually(lambda: find(client, q="wars") == ["i1"])
    assert find(client, q="gnu") == ["new"]


def test_until_a_large_catalogue_is_read_an_answer_says_so(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow, may_read = SearchIndex.follow, Event()

    def slowly(index: SearchIndex, catalogue: Catalogue) -> None:
        may_read.wait(30)
        follow(index, catalogue)

    monkeypatch.setattr("serving.service._INDEXED_AT_ONCE", 1)
    monkeypatch.setattr(SearchIndex, "follow", slowly)
    world.catalogue(*({"item_id": i, "title": f"Song {i}"} for i in ("i1", "i2")))
    world.promote(("i1", "i2"))
    with world.client() as client:
        answer = client.get("/v1/search?q=song").json()
        assert (answer["source"], answer["reason"]) == ("popular", Reason.NO_INDEX.value)
        assert len(answer["items"]) == 2
        may_read.set()
        eventually(lambda: client.get("/v1/search?q=song").json()["source"] == "search")
        assert sorted(find(client, q="song")) == ["i1", "i2"]


def test_nothing_to_look_for_is_refused(client: Any) -> None:
    for query in ("", "?q=", "?q=%20%20", f"?q={'x' * 501}"):
        response = client.get(f"/v1/search{query}")
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "query.q")


def snapshot(**titles: str) -> Catalogue:
    rows = [{"item_id": item_id, "title": title} for item_id, title in titles.items()]
    return Catalogue(Snapshot(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes are kept, also those of few items."""
    monkeypatch.setattr("serving.search._KEPT_FROM", 1)
    return tmp_path / "search"


def found(folder: Path, catalogue: Catalogue, words: str) -> list[str]:
    """What an index finds that starts now."""
    index = SearchIndex(folder)
    index.follow(catalogue)
    return [item_id for item_id, _ in index.find(words, catalogue, every=True)]


def test_a_start_takes_over_the_kept_index_and_changes_a_copy(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(i0="Star Wars", i1="Born Free")
    assert found(kept, before, "star") == ["i0"]
    monkeypatch.setattr(Snapshot, "words", lambda _: pytest.fail("the words were read anew"))
    assert found(kept, before, "star") == ["i0"]
    changed = Catalogue(before.snapshot, {"i1": Entry("i1", title="Star")})
    assert sorted(found(kept, changed, "star")) == ["i0", "i1"]
    assert found(kept, before, "star") == ["i0"]


def test_a_kept_index_is_of_one_snapshot(kept: Path) -> None:
    assert found(kept, snapshot(i0="Star Wars"), "star") == ["i0"]
    (kept / "made-otherwise.v1.sqlite").touch()
    assert found(kept, snapshot(i0="Star Wars", i1="A Star"), "a star") == ["i1"]
    assert len(list(kept.iterdir())) == 1


def test_a_damaged_kept_index_is_made_anew(kept: Path) -> None:
    films = snapshot(**{f"i{n}": f"film {n}" for n in range(500)})
    assert found(kept, films, "film 7") == ["i7"]
    (file,) = kept.iterdir()
    for content in (b"", b"no index", file.read_bytes()[:20_000]):
        file.write_bytes(content)
        assert found(kept, films, "film 7") == ["i7"]
        assert found(kept, films, "film 7") == ["i7"]


def test_an_index_that_cannot_be_kept_finds_all_the_same(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.write_text("a file where the folder should be")
    assert found(kept, snapshot(i0="Star Wars"), "star") == ["i0"]
    assert "could not be kept" in caplog.text


def test_of_many_items_that_were_put_only_the_new_ones_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    match = Filters.match

    def judge(filters: Filters, entry: Entry) -> bool:
        judged.append(entry.item_id)
        return match(filters, entry)

    monkeypatch.setattr(Filters, "match", judge)
    index, state = SearchIndex(tmp_path), snapshot(i0="Star Wars")
    index.follow(state)

    def stars(catalogue: Catalogue) -> list[str]:
        judged.clear()
        pairs = index.find("star", catalogue, Filters(price_max=9), every=True)
        return sorted(item_id for item_id, _ in pairs)

    cheap = {"attributes": {"price": 5}}
    before = state.put(Entry(f"n{n}", title=f"Star {n}", **cheap) for n in range(3))
    assert stars(before) == judged == ["n0", "n1", "n2"]
    assert (stars(before), judged) == (["n0", "n1", "n2"], [])
    after = before.put([Entry("n1", title="Moon", **cheap), Entry("n3", title="Star", **cheap)])
    assert (stars(after), judged) == (["n0", "n2", "n3"], ["n1", "n3"])
    assert (stars(before), judged) == (["n0", "n2", "n3"], []), "an index never goes back"
    assert index.find("star", after, every=True)[0][0] in {"n0", "n2", "n3", "i0"}
