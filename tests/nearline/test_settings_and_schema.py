from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from nearline.domains import BUILT_IN, load_domain
from nearline.errors import ConfigError
from nearline.records import Event
from nearline.schema import RAW_SCHEMA
from nearline.settings import settings


def test_paths_follow_home(home: Path) -> None:
    found = settings()
    assert found.lake == str(home / "lake")
    assert found.feast_online == home / "feast/online.db"


def test_a_wrong_setting_names_variable_and_value(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_SERVE_PORT", "http")
    with pytest.raises(ConfigError, match="NEARLINE_SERVE_PORT='http'"):
        settings()


def test_a_size_is_one_of_three_or_a_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yaml"
    monkeypatch.setenv("NEARLINE_MODEL_SIZE", str(own))
    with pytest.raises(ConfigError, match=r"NEARLINE_MODEL_SIZE=.*a YAML file that is there"):
        settings()
    own.write_text("like: small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARLINE_MODEL_SIZE", "own.yaml")
    assert settings().model_size == str(own)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_domains_have_positive_events(name: str) -> None:
    domain = load_domain(name)
    assert domain.name == name
    assert domain.positive


def test_a_visit_without_a_type_counts_as_a_sign_of_interest() -> None:
    touches = {name: load_domain(name).touch for name in BUILT_IN}
    assert touches == {"commerce": "view", "entertainment": "play", "social": "like"}


def test_a_domain_file_with_a_wrong_funnel_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nevent_types: {view: {positive: true, weight: 1}}\nfunnel: [buy]\n")
    with pytest.raises(ConfigError, match="buy"):
        load_domain(str(file))
    with pytest.raises(ConfigError, match="no domain 'opera'"):
        load_domain("opera")


def test_an_event_becomes_a_raw_row() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    event = Event(
        event_id="e",
        user_id="u",
        event_type="play",
        event_ts="2026-01-01T01:00:00+01:00",
        value=0.5,
    )
    row = event.raw(source="api", received_ts=now)
    assert set(row) == set(RAW_SCHEMA.names)
    assert (row["event_ts"], row["value"]) == ("2026-01-01T00:00:00.000000+00:00", "0.5")


@pytest.mark.parametrize(
    "wrong", [{"user_id": ""}, {"user_id": "a\x00b"}, {"value": float("nan")}, {"colour": "red"}]
)
def test_a_malformed_event_is_refused(wrong: dict[str, object]) -> None:
    right = {"event_id": "e", "user_id": "u", "event_type": "play", "event_ts": "2026-01-01"}
    with pytest.raises(ValidationError):
        Event.model_validate(right | wrong)
