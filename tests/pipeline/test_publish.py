"""Until when the vectors that go online know what users did."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from nearline.intake import close_hours
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.windows import HOUR, Window
from pipeline import publish, steps
from pipeline.publish import USER_SEQUENCE, active_users, known_until
from serving.release import LoadedRelease

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
LAST = Window.of_hour(T0)
EARLY = T0 + HOUR / 2
pytestmark = pytest.mark.usefixtures("home")


def closed_early() -> None:
    close_hours(LAST, clock=lambda: EARLY)
    make_sequences()


def make_sequences() -> None:
    Lake.open().mark_complete(USER_SEQUENCE, LAST, rows=0)


def test_an_hour_is_known_until_it_was_closed() -> None:
    make_sequences()
    assert known_until(LAST.end) == LAST.end
    closed_early()
    assert known_until(LAST.end) == EARLY
    assert known_until(LAST.start) == LAST.start


def test_what_arrived_since_an_early_closing_is_unknown_until_sequences_are_made_of_it() -> None:
    closed_early()
    steps.close_hours(LAST)
    assert known_until(LAST.end) == LAST.start, "nobody can tell any more when it was closed"
    make_sequences()
    assert known_until(LAST.end) == LAST.end


def test_vectors_know_no_more_than_was_there_before_their_features_were_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = SimpleNamespace(
        manifest=SimpleNamespace(window_end=LAST.end),
        vocabulary=None,
        length=1,
        dim=2,
        encode=None,
    )
    monkeypatch.setattr(LoadedRelease, "load", lambda *_, **__: release)
    monkeypatch.setattr(ReleaseStore, "load", lambda *_: None)
    closed_early()

    def closed_meanwhile(window: Window) -> dict[str, object]:
        steps.close_hours(LAST)
        return {}

    monkeypatch.setattr(publish, "_newest", closed_meanwhile)
    users = active_users("v")
    assert (users.ids, users.vectors.shape, users.known_until) == ([], (0, 2), EARLY)
    assert users.vectors.dtype == np.float32
