"""A challenger that is asked beside the requests: measured, and never shown."""

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from nearline.intake.files import read_hour
from nearline.settings import settings
from nearline.windows import hour_floor
from serving.answers import Answer, ScoredItem
from serving.metrics import Metrics
from serving.shadow import MOST_WAITING, Shadow, overlap

ITEMS = tuple(f"i{n}" for n in range(12))


def answer(*item_ids: str) -> Answer:
    return Answer("r", "live", [ScoredItem(each, None, 1.0, "encoder") for each in item_ids])


def figure(metrics: Metrics, name: str) -> float:
    lines = metrics.text().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


@pytest.mark.parametrize(
    ("shown", "other", "share"),
    [("abcd", "cdef", 0.5), ("ab", "ab", 1), ("ab", "", 0), ("", "", 1), ("", "a", 0)],
)
def test_overlap_is_the_share_of_what_was_shown(shown: str, other: str, share: float) -> None:
    assert overlap(answer(*shown), answer(*other)) == share


def test_lists_that_come_too_fast_are_dropped_and_one_that_fails_harms_nothing(
    eventually: Callable[..., None],
) -> None:
    metrics, gate = Metrics(), Event()
    shadow = Shadow(metrics)

    def wait() -> Answer:
        gate.wait(10)
        return answer("a", "b")

    shadow.ask("test", lambda: 1 / 0, answer("a"))  # type: ignore[arg-type,return-value]
    eventually(lambda: figure(metrics, "nearline_shadow_lists_total") == 1)
    for _ in range(MOST_WAITING + 5):
        shadow.ask("test", wait, answer("a"))
    told = 'nearline_shadow_lists_total{experiment="test",outcome="%s"}'
    assert figure(metrics, told % "dropped") == 5
    gate.set()
    eventually(lambda: figure(metrics, told % "answered") == MOST_WAITING)
    assert figure(metrics, told % "failed") == 1
    assert figure(metrics, 'nearline_shadow_overlap_sum{experiment="test"}') == MOST_WAITING
    shadow.close()


def test_a_shadow_is_asked_for_the_controls_lists_and_never_shown(
    world: Any, eventually: Callable[..., None]
) -> None:
    world.catalogue(*({"item_id": item_id} for item_id in ITEMS))
    active, other = world.promote(ITEMS), world.publish(ITEMS, seed=2)
    settings().experiments.write_text(
        "test: {arms: {control: {share: 0.999999}, rest: {share: 0.000001}}, "
        f"shadow: {{release: {other}, share: 1}}}}"
    )
    with world.client() as client:
        client.post("/v1/events", json=world.event("e1", "i1"))
        alone = [client.get("/v1/users/ann/recommendations?limit=4").json() for _ in range(3)]
        told = 'nearline_shadow_lists_total{experiment="test",outcome="answered"} 3.0'
        eventually(lambda: told in client.get("/metrics").text)
        text = client.get("/metrics").text
    assert {each["release"] for each in alone} == {active}
    assert 'nearline_shadow_seconds_count{experiment="test"} 3.0' in text
    logged = read_hour(settings().intake / "impressions", hour_floor(world.now))
    assert {row["release"] for row in logged} == {active}
    assert len(logged) == 3
