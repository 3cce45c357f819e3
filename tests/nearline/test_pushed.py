"""A Redis that is asked whose vectors it holds, and falls silent."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from nearline.errors import StepFailed
from nearline.pushed import pushed, tell_pushed
from nearline.settings import settings


@pytest.mark.parametrize("ask", [pushed, partial(tell_pushed, "v"), partial(tell_pushed, None)])
def test_a_silent_redis_is_given_up(
    home: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]
) -> None:
    # Closed before the thread is waited for, which is let go by that at the latest.
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NEARLINE_ONLINE_STORE", "redis")
        monkeypatch.setenv("NEARLINE_REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        monkeypatch.setenv("NEARLINE_REDIS_TIMEOUT_S", "0.1")
        settings.cache_clear()
        with pytest.raises(StepFailed, match=r"the online store was not .*: Timeout"):
            pool.submit(ask).result(20)
