"""The demo's folder: its own, emptied at each start, never somebody else's."""

import os
import socket
import sys
from pathlib import Path

import psutil
import pytest

from nearline.errors import BadInput
from nearline.settings import settings
from pipeline import services
from pipeline.demo.home import choose_ports, claim_home


def test_a_folder_with_other_data_is_left_alone(home: Path) -> None:
    (home / "lake").mkdir()
    with pytest.raises(BadInput, match="holds data that is no demo's"):
        claim_home()
    assert (home / "lake").is_dir()


def test_what_a_killed_demo_left_is_ended_and_removed(home: Path) -> None:
    claim_home()
    left = services.start(
        "airflow", [sys.executable, "-c", "import time; time.sleep(60)"], env=os.environ
    )
    for made in ("lake/raw", "cache"):
        (home / made).mkdir(parents=True)
        (home / made / "file").touch()
    claim_home()
    assert not psutil.pid_exists(left.pid) or not services.running(left)
    assert not (home / "lake").exists()
    assert (home / "cache" / "file").exists(), "downloads are kept"


@pytest.mark.usefixtures("home")
def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("NEARLINE_SERVE_PORT", str(port))
        monkeypatch.setenv("NEARLINE_AIRFLOW_PORT", str(port))
        settings.cache_clear()
        choose_ports()
        assert settings().serve_port > port
    settings.cache_clear()
