import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from nearline.errors import StepFailed
from pipeline import services

FAMILY = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', %r]); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def start(code: str) -> services.Service:
    return services.start("nap", [sys.executable, "-c", code], env=os.environ)


def wait_for_members(service: services.Service, count: int) -> None:
    for _ in range(200):
        if len(service.members()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{service.members()} is not {count} processes")


@pytest.mark.usefixtures("home")
def test_a_service_ends_with_its_children() -> None:
    service = start(FAMILY % "import time; time.sleep(60)")
    wait_for_members(service, 2)
    assert services.running(service)
    with pytest.raises(StepFailed, match="nap runs already"):
        start("pass")
    assert services.stop_all() == ["nap"]
    assert (service.members(), services.running(service), services.recorded()) == ([], False, [])


@pytest.mark.usefixtures("home")
def test_children_are_ended_where_the_leader_was_killed() -> None:
    service = start(FAMILY % "import time; time.sleep(60)")
    wait_for_members(service, 2)
    psutil.Process(service.pid).kill()
    assert services.stop_all() == ["nap"]
    assert service.members() == []


@pytest.mark.usefixtures("home")
def test_one_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_PATIENCE_S", 0.5)
    service = start(STUBBORN)
    wait_for_members(service, 1)
    time.sleep(0.3)
    services.stop_all()
    assert service.members() == []


def test_a_number_that_somebody_else_got_is_left_alone(home: Path) -> None:
    me = services.Service("nap", os.getpgid(0), time.time())
    (home / "run").mkdir()
    (home / "run" / "nap.json").write_text(
        f'{{"name": "nap", "pid": {me.pid}, "created": {me.created}}}'
    )
    assert services.stop_all() == []


@pytest.mark.usefixtures("home")
def test_what_it_prints_is_kept() -> None:
    service = start("print('hello')")
    for _ in range(100):
        if not services.running(service):
            break
        time.sleep(0.05)
    assert services.log_path("nap").read_text() == "hello\n"
