"""What goes wrong is told with its kind and its place, and names no user."""

import logging
import logging.config
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from nearline.errors import ConfigError, NotReady
from nearline.experiments import Assigned
from nearline.records import Event
from serving.active import ActiveRelease
from serving.answers import Answer
from serving.errors import UnknownUser
from serving.experiments import Choice, Trials
from serving.logs import LOGGING, thread_ended, trace
from serving.metrics import Metrics
from serving.ranking import Ranking
from serving.shadow import Shadow

SECRET = "ann-the-secret"
log = logging.getLogger("serving.test")


def missing() -> Any:
    return {}[SECRET]


def invalid() -> Any:
    return Event.model_validate({"user_id": SECRET})


def unknown() -> Any:
    raise UnknownUser(f"nothing is known of user {SECRET!r}")


def led_on() -> Any:
    try:
        missing()
    except KeyError as error:
        raise ExceptionGroup(SECRET, [error, ValueError(SECRET)]) from error


def refused() -> Any:
    raise OSError(5, SECRET)


FAILURES = [missing, invalid, unknown, led_on, refused]


def failure(fail: Callable[[], Any]) -> Exception:
    try:
        fail()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    """What the handler of a server wrote so far."""
    root, out = logging.getLogger(), StringIO()
    before, level = root.handlers[:], root.level
    logging.config.dictConfig(LOGGING)
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(out)
    yield out.getvalue
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("fail", FAILURES)
def test_an_error_is_told_with_its_place_and_without_what_it_quotes(
    fail: Callable[[], Any],
) -> None:
    error = failure(fail)
    told = trace(error)
    assert SECRET not in told
    assert type(error).__name__ in told
    assert f"in {fail.__name__}\n" in told


def test_what_led_to_an_error_is_told_before_it() -> None:
    lines = trace(failure(led_on)).splitlines()
    at = [lines.index(each) for each in ("KeyError", "which led to", "ExceptionGroup")]
    assert at == sorted(at)
    assert lines[-1] == "ValueError"


def test_what_is_ours_or_the_systems_is_told_whole(tmp_path: Path) -> None:
    def absent() -> Any:
        (tmp_path / "absent").read_text()

    def wrong() -> Any:
        raise ConfigError("keys.json cannot be read")

    assert trace(failure(absent)).endswith(f"No such file or directory: {tmp_path / 'absent'}")
    assert trace(failure(wrong)).endswith("ConfigError: keys.json cannot be read")


@pytest.mark.parametrize("fail", FAILURES)
def test_the_log_of_a_server_tells_no_text(
    logged: Callable[[], str], fail: Callable[[], Any]
) -> None:
    try:
        fail()
    except Exception:
        log.exception("it failed")
    told = logged()
    assert "ERROR serving.test: it failed\nTraceback" in told
    assert SECRET not in told


def test_what_ends_a_thread_is_logged_without_its_text(
    logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", thread_ended)
    thread = threading.Thread(target=missing, name="watch")
    thread.start()
    thread.join()
    told = logged()
    assert "thread watch ended" in told
    assert SECRET not in told


@pytest.mark.parametrize("fail", FAILURES)
def test_a_request_that_fails_names_its_route(
    world: Any, caplog: pytest.LogCaptureFixture, fail: Callable[[], Any]
) -> None:
    world.promote(["i0"])
    service = world.service()
    service.recommender.states = lambda *_, **__: fail()
    with world.client(service) as client, caplog.at_level(logging.INFO):
        answer = client.get(f"/v1/users/{SECRET}/recommendations")
    ours = "\n".join(record.getMessage() for record in caplog.records if "serving" in record.name)
    if fail is not unknown:  # which is an answer, and no failure
        assert answer.status_code == 500
        assert "/v1/users/{user_id}/recommendations" in ours
    assert SECRET not in ours
    assert all(record.exc_info is None for record in caplog.records)


def test_an_arm_a_shadow_and_a_ranker_that_fail_name_no_user(
    world: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., None],
) -> None:
    def fail(*_: Any) -> Any:
        missing()

    metrics = Metrics()
    trials = Trials.open(ActiveRelease.open(world.followed(), metrics), metrics)
    with pytest.raises(NotReady):  # the control has no release
        trials.answer(Choice(Any, assigned=Assigned("test", "arm")), fail, world.now)
    Shadow(metrics).ask("test", missing, Answer("r", "live", []))
    monkeypatch.setattr(Ranking, "_ranked", fail)
    Ranking(Any, metrics).order(Any, Any, [], [], world.now)
    whose = ("arm arm of", "the challenger of", "the candidates were")
    eventually(lambda: all(each in caplog.text for each in whose))
    assert SECRET not in caplog.text
