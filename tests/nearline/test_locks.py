"""One at a time, whoever it is."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nearline.locks import alone, alone_in

HOLDER = """
import sys
from nearline.locks import alone
with alone("lake"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_waits_and_a_dead_one_lets_go(home: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    entered = threading.Event()

    def enter() -> None:
        with alone("lake"):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    with alone("online"):
        assert not entered.wait(0.2)
    holder.kill()
    holder.wait()
    waiting.join(30)
    assert entered.is_set()


@pytest.mark.usefixtures("home")
def test_the_holder_may_enter_again() -> None:
    with alone("lake"):
        with alone("lake"):
            pass
        entered = threading.Event()

        def enter() -> None:
            with alone("lake"):
                entered.set()

        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(0.2)
    other.join(30)
    assert entered.is_set()


def test_a_folder_is_worked_in_by_one_process_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = HOLDER.replace('alone("lake")', "alone_in(Path(sys.argv[1]))")
    code = code.replace("import alone\n", "import alone_in\nfrom pathlib import Path\n")
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "one"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with alone_in(tmp_path / "other"):
        pass
    assert caplog.text == ""
    entered = threading.Event()

    def enter() -> None:
        with alone_in(tmp_path / "one"):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.2)
    holder.kill()
    holder.wait()
    waiting.join(30)
    assert entered.is_set()
    assert f"waiting: something else works in {tmp_path / 'one'} now" in caplog.text
