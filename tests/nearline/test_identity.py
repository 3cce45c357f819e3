"""Ids as they are stored: the same for the same secret, and telling nobody without it."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from nearline.errors import ConfigError
from nearline.identity import keyed_hash, stored_id, stored_ids
from nearline.settings import settings


@pytest.fixture
def pseudonyms(home: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("NEARLINE_PSEUDONYMISE", "true")
    monkeypatch.setenv("NEARLINE_ID_SECRET", "s3cret")
    settings.cache_clear()
    return monkeypatch


@pytest.mark.usefixtures("home")
def test_without_pseudonyms_an_id_is_stored_as_it_is() -> None:
    assert stored_id("ann") == "ann"
    assert stored_ids(pa.chunked_array([["ann", None]])).to_pylist() == ["ann", None]


def test_a_pseudonym_depends_on_id_and_secret_and_is_made_once(
    pseudonyms: pytest.MonkeyPatch,
) -> None:
    ann = stored_id("ann")
    assert (len(ann), ann[0], stored_id("ann"), stored_id(ann)) == (33, "~", ann, ann)
    assert len({ann, stored_id("bob"), stored_id("Ann"), f"~{keyed_hash('forgotten', 'ann')}"}) == 4
    pseudonyms.setenv("NEARLINE_ID_SECRET", "another")
    settings.cache_clear()
    assert stored_id("ann") != ann


@pytest.mark.usefixtures("pseudonyms")
def test_a_column_is_hashed_as_its_values_are() -> None:
    ids = ["ann", None, "bob", "", "ann", stored_id("eve")]
    found = stored_ids(pa.chunked_array([ids[:2], ids[2:]], pa.string()))
    assert found.to_pylist() == [i and stored_id(i) for i in ids]


@pytest.mark.usefixtures("pseudonyms")
@pytest.mark.parametrize("user_id", ["a\nb", "x" * 257, "\x7f"])
def test_an_ill_formed_id_stays_ill_formed(user_id: str) -> None:
    assert "\x7f" in stored_id(user_id)
    assert stored_id(stored_id(user_id)) == stored_id(user_id)


def test_pseudonyms_need_a_secret_that_is_not_beside_the_data(
    pseudonyms: pytest.MonkeyPatch,
) -> None:
    pseudonyms.delenv("NEARLINE_ID_SECRET")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="NEARLINE_PSEUDONYMISE needs NEARLINE_ID_SECRET"):
        settings()


def test_a_secret_that_was_made_is_kept_for_its_owner(home: Path) -> None:
    first = keyed_hash("forgotten", "ann")
    assert stat.S_IMODE((home / "id_secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["id_secret"]
    from nearline.identity import _kept_secret

    _kept_secret.cache_clear()
    assert keyed_hash("forgotten", "ann") == first


def test_threads_that_make_a_secret_at_the_same_moment_keep_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, meeting = os.link, threading.Barrier(2, timeout=30)

    def met(staged: str, path: Path) -> None:
        meeting.wait()
        link(staged, path)

    monkeypatch.setattr(os, "link", met)
    with ThreadPoolExecutor(2) as pool:
        hashes = set(pool.map(keyed_hash, ["forgotten"] * 2, ["ann"] * 2))
    assert hashes == {keyed_hash("forgotten", "ann")}
    assert [path.name for path in home.iterdir()] == ["id_secret"]
