"""The ranking stage: a ranker that is on gives the order, and one that fails leaves it."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from nearline import bundle
from nearline.errors import CorruptRelease
from nearline.intake import forgotten as wishes
from nearline.ranking import COLUMNS
from nearline.releases import Ranking
from nearline.settings import settings
from serving.ranker import Ranker
from serving.reasons import Reason
from serving.release import LoadedRelease
from training.ranking.examples import Examples
from training.ranking.learning import learn

ITEMS = tuple(f"i{n}" for n in range(12))
PATH = "/v1/users/ann/recommendations"
WINS, LOSES = (Ranking(wins=wins, reason="planted") for wins in (True, False))


@pytest.fixture(scope="module")
def by_velocity() -> str:
    """A ranker that learned that the item of the highest velocity comes next."""
    rng = np.random.default_rng(1)
    requests, candidates = 300, 20
    rows = np.full((requests * candidates, len(COLUMNS)), np.nan, dtype=np.float32)
    velocity = rng.random((requests, candidates), dtype=np.float32)
    rows[:, COLUMNS.index("item_popularity__velocity")] = velocity.ravel()
    sizes, wanted = np.full(requests, candidates), velocity.argmax(axis=1)
    found = Examples(rows, sizes, wanted, np.arange(requests))
    return str(learn(found, seed=1).model_to_string())


@pytest.fixture
def shop(world: Any, by_velocity: str) -> Any:
    """Twelve items, those of higher numbers sell faster; ann touched i0."""
    world.catalogue(*({"item_id": item_id} for item_id in ITEMS))
    world.store.put_sequence("ann", [("i0", "play", world.now - timedelta(hours=1))])
    world.store.ranking = {
        item_id: {"item_popularity__velocity": n / 12} for n, item_id in enumerate(ITEMS)
    }
    world.by_velocity = by_velocity
    return world


def ask(client: Any, **params: Any) -> dict[str, Any]:
    response = client.get(PATH, params={"limit": 11} | params)
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def unranked(shop: Any) -> list[str]:
    """The order without a ranker."""
    shop.promote(ITEMS)
    with shop.client() as client:
        return ids(ask(client))


def promote(shop: Any, ranking: Ranking) -> None:
    # Another end of data makes it another release, of the same vectors.
    until = shop.now - timedelta(minutes=29)
    shop.promote(ITEMS, ranker=shop.by_velocity, ranking=ranking, until=until)


@pytest.fixture
def rank_use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets NEARLINE_RANKER."""

    def use(value: str) -> None:
        monkeypatch.setenv("NEARLINE_RANKER", value)
        settings.cache_clear()

    return use


@pytest.mark.parametrize(
    ("ranking", "use", "ranked"),
    [
        (WINS, "auto", True),
        (LOSES, "auto", False),
        (LOSES, "on", True),
        (WINS, "off", False),
    ],
)
def test_a_ranker_orders_where_it_won_or_is_told_to(
    shop: Any, rank_use: Any, ranking: Ranking, use: str, ranked: bool
) -> None:
    rank_use(use)
    before = unranked(shop)
    promote(shop, ranking)
    with shop.client() as client:
        answer = ask(client, explain=True)
        metrics = client.get("/metrics").text
    fastest = [f"i{n}" for n in range(11, 0, -1)]
    assert before[:2] != fastest[:2]
    assert ids(answer)[:2] == (fastest if ranked else before)[:2]
    assert answer["reason"] is None
    assert ('nearline_rankings_total{outcome="ranked"} 1.0' in metrics) == ranked
    stages = [item["why"] for item in answer["items"]]
    assert all("encoder" in stage["scores"] for stage in stages)
    assert all((stage["ranked"] is not None) == ranked for stage in stages)


def test_the_views_that_a_ranker_reads_are_named_with_their_times(shop: Any) -> None:
    for n, item_id in enumerate(ITEMS):
        ts = int((shop.now - timedelta(hours=n + 1)).timestamp())
        shop.store.ranking[item_id]["item_popularity__velocity__ts"] = ts
    ts = int((shop.now - timedelta(minutes=7)).timestamp())
    shop.store.users["ann"]["user_activity__events_1h__ts"] = ts
    promote(shop, WINS)
    with shop.client() as client:
        features = ask(client)["features"]
        again = ask(client)["features"]
    assert again == features
    assert features == {
        "user_sequence": "2026-01-02T12:00:00Z",
        "user_activity": "2026-01-02T12:23:00Z",
        "item_popularity": "2026-01-02T10:30:00Z",
    }


def test_an_arm_may_do_without_the_ranker(shop: Any) -> None:
    before = unranked(shop)
    promote(shop, WINS)
    settings().experiments.write_text(
        "test: {surfaces: [home], arms: {control: {share: 0.000001}, "
        "plain: {share: 0.999999, settings: {ranker: off}}}}"
    )
    with shop.client() as client:
        home, elsewhere = ask(client, surface="home"), ask(client, surface="item")
    assert (home["arm"], ids(home)) == ("plain", before)
    assert (elsewhere["arm"], ids(elsewhere)[:2]) == (None, ["i11", "i10"])


def test_a_new_item_keeps_its_place(shop: Any) -> None:
    categories = {"categories": ["noir"]}
    shop.catalogue(*({"item_id": item_id} | categories for item_id in (*ITEMS, "new")))
    shop.promote(ITEMS)
    with shop.client() as client:
        place = ids(ask(client, limit=12)).index("new")
    promote(shop, WINS)
    with shop.client() as client:
        answer = ask(client, limit=12)
    assert ids(answer).index("new") == place
    assert ids(answer)[0] in ("i11", "new")


def test_features_that_come_too_late_leave_the_order_and_are_told(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = unranked(shop)
    promote(shop, WINS)
    shop.store.ranking_delay_s = 1.0
    monkeypatch.setenv("NEARLINE_FEATURE_DEADLINE_MS", "500")
    settings.cache_clear()
    with shop.client() as client:
        answer = ask(client)
        metrics = client.get("/metrics").text
    assert ids(answer) == before
    assert answer["reason"] == Reason.RANKER_LATE
    assert 'nearline_rankings_total{outcome="ranker_late"} 1.0' in metrics
    assert 'nearline_fallbacks_total{reason="ranker_late"} 1.0' in metrics


@pytest.mark.parametrize("what", ["ranker", "store"])
def test_a_dead_ranker_leaves_the_order_and_is_told(
    shop: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = unranked(shop)
    promote(shop, WINS)
    if what == "ranker":
        monkeypatch.setattr(Ranker, "scores", lambda self, rows: rows[0, "no"])
    else:
        shop.store.ranking_error = ConnectionError("gone")
    with shop.client() as client:
        answer = ask(client)
        metrics = client.get("/metrics").text
    assert ids(answer) == before
    assert answer["reason"] == Reason.RANKER_FAILED
    assert 'nearline_rankings_total{outcome="ranker_failed"} 1.0' in metrics


def test_features_are_read_again_when_their_time_is_over(shop: Any) -> None:
    promote(shop, WINS)
    with shop.client() as client:
        ask(client)
        asked = [read_again(shop, client, seconds) for seconds in (30, 31, 240)]
    assert asked[0] == []
    assert asked[1] == [{"user_id": "ann"}]
    assert len(asked[2]) == 12


def read_again(shop: Any, client: Any, seconds: float) -> list[dict[str, str]]:
    """What a request that comes so much later reads for its ranking."""
    shop.now += timedelta(seconds=seconds)
    shop.store.asked.clear()
    ask(client)
    return [key for features, keys in shop.store.asked for key in keys if ranked(features)]


def ranked(features: list[str]) -> bool:
    return any(name.startswith(("item_popularity", "user_activity")) for name in features)


def test_who_comes_after_a_forgotten_user_is_not_ranked_by_what_was_read_of_that_one(
    shop: Any,
) -> None:
    promote(shop, WINS)
    with shop.client() as client:
        ask(client)
        client.delete("/v1/users/ann")
        shop.store.users.clear()
        [wish] = wishes.pending()
        assert wishes.finish(wish)
        shop.now += timedelta(seconds=10)
        client.post("/v1/events", json=shop.event("new", "i1"))
        assert {"user_id": "ann"} in read_again(shop, client, 1)


@pytest.mark.parametrize("harm", [b"", None])
def test_a_ranker_that_was_changed_or_is_gone_is_refused(shop: Any, harm: bytes | None) -> None:
    version = shop.publish(ITEMS, ranker=shop.by_velocity, ranking=WINS)
    release = shop.releases.load(version)
    assert LoadedRelease.load(release, ranker="auto").ranker is not None
    file = release.path / bundle.RANKER
    file.unlink() if harm is None else file.write_bytes(harm)
    with pytest.raises(CorruptRelease, match=r"ranker\.txt"):
        LoadedRelease.load(release, ranker="auto")


def test_a_ranker_of_other_columns_is_not_used(shop: Any) -> None:
    other = shop.by_velocity.replace("near_newest", "near_oldest")
    release = shop.releases.load(shop.publish(ITEMS, ranker=other, ranking=WINS))
    assert LoadedRelease.load(release, ranker="auto").ranker is None
