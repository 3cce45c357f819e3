"""Arms of experiments, through the real app: who is answered by which, and what is logged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from nearline.closed_arms import ClosedArms
from nearline.errors import BadInput, CorruptRelease
from nearline.experiments import Assigned, Experiments, Guardrails
from nearline.intake import close_hours
from nearline.intake.impressions import IMPRESSION_SCHEMA, IMPRESSIONS
from nearline.settings import settings
from nearline.windows import Window
from pipeline.experiments.command import app
from serving.guards import Guards, Outcome, breach

ITEMS = tuple(f"i{n}" for n in range(12))
USERS = tuple(f"u{n}" for n in range(20))


@pytest.fixture
def write(world: Any) -> Callable[[str], None]:
    """Writes the file of experiments."""

    def file(text: str) -> None:
        staged = settings().home / "staged.yaml"
        staged.write_text(text)
        staged.replace(settings().experiments)

    return file


@pytest.fixture
def releases(world: Any) -> tuple[str, str]:
    """An active release, and another; every second item is of the category `noir`."""
    world.catalogue(
        *(
            {"item_id": i, "categories": ["noir" if n % 2 else "own" + i]}
            for n, i in enumerate(ITEMS)
        )
    )
    return world.promote(ITEMS), world.publish(ITEMS, seed=2)


def two(release: str, share: float = 0.5, more: str = "") -> str:
    other = f"{{share: {share}, release: {release}, settings: {{category_cap: 0.2}}}}"
    arms = f"{{control: {{share: {1 - share}}}, other: {other}}}"
    return f"test: {{surfaces: [home], arms: {arms}, {more}}}"


def listed(client: Any, user: str, surface: str = "home") -> dict[str, Any]:
    found: dict[str, Any] = client.get(
        f"/v1/users/{user}/recommendations?surface={surface}&limit=5"
    ).json()
    return found


@contextmanager
def in_use(world: Any, eventually: Any) -> Iterator[Any]:
    with world.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_a_users_arm_answers_and_is_told_and_logged(
    world: Any, write: Any, releases: tuple[str, str], eventually: Any
) -> None:
    active, other = releases
    write(two(other))
    dealt = {u: Experiments.open().assigned(u, "home").arm for u in USERS}  # type: ignore[union-attr]
    assert set(dealt.values()) == {"control", "other"}
    with in_use(world, eventually) as client:
        answers = {user: listed(client, user) for user in USERS}
        batch = client.post(
            "/v1/recommendations", json={"user_ids": USERS, "surface": "home", "limit": 5}
        ).json()["lists"]
        elsewhere = listed(client, USERS[0], "item")
    for user, answer in answers.items():
        in_other = dealt[user] == "other"
        assert (answer["experiment"], answer["arm"]) == ("test", dealt[user])
        assert answer["release"] == (other if in_other else active)
        noir = [int(found["item_id"][1:]) % 2 for found in answer["items"]]
        assert sum(noir) == (1 if in_other else 2)
    assert {each["user_id"]: each["arm"] for each in batch} == dealt
    assert [each["items"] for each in batch] == [each["items"] for each in answers.values()]
    assert (elsewhere["experiment"], elsewhere["arm"]) == (None, None)
    window = Window.of_hour(world.now)
    close_hours(window, clock=lambda: world.now)
    rows = world.lake.read(IMPRESSIONS, window, schema=IMPRESSION_SCHEMA).to_pylist()
    home = [row for row in rows if row["surface"] == "home"]
    assert len(home) == 2 * len(USERS)
    assert all((row["experiment"], row["arm"]) == ("test", dealt[row["user_id"]]) for row in home)
    assert [row["arm"] for row in rows if row["surface"] == "item"] == [None]


def test_the_file_is_followed_and_a_wrong_one_changes_nothing(
    world: Any, write: Any, releases: tuple[str, str], eventually: Any
) -> None:
    write("test: {arms: {}}")
    with in_use(world, eventually) as client:
        assert listed(client, "ann")["experiment"] is None
        write(two(releases[1]))
        eventually(lambda: listed(client, "ann")["experiment"] == "test")
        write("test: {arms: {}}")
        failed = 'nearline_refresh_failures_total{what="experiments"} 2.0'
        eventually(lambda: failed in client.get("/metrics").text)
        assert listed(client, "ann")["experiment"] == "test"
        settings().experiments.unlink()
        eventually(lambda: listed(client, "ann")["experiment"] is None)


def test_a_file_that_comes_while_the_store_is_out_of_reach_is_taken_later(
    world: Any, write: Any, releases: tuple[str, str]
) -> None:
    service = world.service()
    pointer = world.releases.root / "active.json"
    whole = pointer.read_text()
    service.trials.refresh()
    pointer.write_text("{")
    write(two(releases[1]))
    with pytest.raises(CorruptRelease, match=r"active\.json of the releases is damaged"):
        service.trials.refresh()
    pointer.write_text(whole)
    service.trials.refresh()
    assert service.trials.choose("ann", "home", service.active.pin()).assigned is not None


def test_an_arm_without_its_release_is_no_arm(
    world: Any, write: Any, releases: tuple[str, str], eventually: Any
) -> None:
    write(two("20260101T00-nightly-00000000"))
    with in_use(world, eventually) as client:
        answers = [listed(client, user) for user in USERS]
    assert {(each["arm"], each["release"]) for each in answers} == {
        ("control", releases[0]),
        (None, releases[0]),
    }


def test_a_kept_list_is_not_given_under_another_arm(
    world: Any,
    write: Any,
    releases: tuple[str, str],
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEARLINE_KEPT_SECONDS", "60")
    settings.cache_clear()
    with in_use(world, eventually) as client:
        before = listed(client, "ann")
        assert listed(client, "ann")["items"] == before["items"]
        write(two(releases[1], share=0.999999))
        eventually(lambda: listed(client, "ann")["arm"] == "other")
        assert listed(client, "ann")["release"] == releases[1]


def test_an_item_that_is_put_is_known_to_every_arm(
    world: Any, write: Any, releases: tuple[str, str], eventually: Any
) -> None:
    write(two(releases[1]))
    world.now += timedelta(seconds=1)
    item = {
        "item_id": "i3",
        "title": "I3",
        "created_ts": "2026-01-01T00:00:00Z",
        "available": False,
    }
    with in_use(world, eventually) as client:
        assert client.put("/v1/items", json=item).status_code == 200
        shown = [{i["item_id"] for i in listed(client, user)["items"]} for user in USERS]
    assert not any("i3" in each for each in shown)


def test_an_arm_that_breaks_a_bound_is_closed_for_every_worker(
    world: Any, write: Any, releases: tuple[str, str], eventually: Any, caplog: Any
) -> None:
    write(two(releases[1], share=0.999999, more="guardrails: {lists: 20, fallback_share: 0.5}"))
    with in_use(world, eventually) as one, in_use(world, eventually) as other:
        arms = [listed(one, "stranger")["arm"] for _ in range(22)]
        assert arms == ["other"] * 20 + [None] * 2
        eventually(lambda: listed(other, "stranger")["arm"] is None)
        assert listed(other, "stranger")["release"] == releases[0]
        arm = 'arm="other",experiment="test",guardrail="fallback_share"'
        assert f"nearline_arms_closed_total{{{arm}}} 1.0" in one.get("/metrics").text
        told = "arm other of experiment test is closed: fallback_share is 1, and at most 0.5"
        assert told in caplog.text
        shell = CliRunner().invoke(app, ["list"])
        assert "fallback_share is 1" in " ".join(shell.stderr.split())
        assert CliRunner().invoke(app, ["reopen", "test", "other"]).exit_code == 0
        eventually(lambda: listed(one, "stranger")["arm"] == "other")
    with pytest.raises(BadInput, match="'other' of experiment 'test' is not closed"):
        ClosedArms.open().reopen(Assigned("test", "other"), now=world.now)


def test_users_of_an_arm_that_fails_get_the_control(
    world: Any, write: Any, releases: tuple[str, str]
) -> None:
    write(two(releases[1], share=0.999999, more="guardrails: {lists: 20}"))
    service = world.service()
    asked = service.recommender.for_user

    def for_user(pinned: Any, *how: Any, **more: Any) -> Any:
        if pinned.release.version == releases[1]:
            raise RuntimeError("a bug that the other release brings out")
        return asked(pinned, *how, **more)

    service.recommender.for_user = for_user
    with world.client(service) as client:
        answers = [listed(client, "ann") for _ in range(21)]
    assert {answer["release"] for answer in answers} == {releases[0]}
    assert all(len(answer["items"]) == 5 for answer in answers)
    assert [answer["arm"] for answer in answers[-2:]] == ["other", None]
    reason = ClosedArms.open().read()[Assigned("test", "other")].reason
    assert reason == "error_share is 1, and at most 0.05 is allowed"


BOUNDS = Guardrails(lists=100, error_share=0.02, fallback_share=0.5, p99_ms=50)


@pytest.mark.parametrize(
    ("bad", "count", "broken"),
    [
        (Outcome(0.001, failed=True), 2, None),
        (Outcome(0.001, failed=True), 3, ("error_share", 0.03, 0.02)),
        (Outcome(0.001, fallback=True), 50, None),
        (Outcome(0.001, fallback=True), 51, ("fallback_share", 0.51, 0.5)),
        (Outcome(0.2), 1, None),
        (Outcome(0.2), 2, ("p99_ms", 200, 50)),
    ],
)
def test_a_bound_is_broken_by_more_than_it_allows(bad: Any, count: int, broken: Any) -> None:
    guards, arm = Guards(), Assigned("test", "other")
    outcomes = [*[bad] * count, *[Outcome(0.001)] * (100 - count)]
    *early, last = [guards.hear(arm, BOUNDS, outcome) for outcome in outcomes]
    assert early == [None] * 99
    assert last == broken
    assert guards.hear(arm, BOUNDS, bad) is None
    assert breach(outcomes, Guardrails(lists=100)) is None
