"""Hours of one domain or sequence length never follow hours of another."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearline.errors import BadInput
from nearline.lake import EVENTS, RAW, Lake
from nearline.settings import settings
from nearline.windows import HOUR, Window
from pipeline.chunks import Progress
from pipeline.definition import require_same

T0 = datetime(2026, 5, 1, tzinfo=UTC)
ACTIVITY, NEIGHBOURS = "features/user_activity", "features/item_neighbours"
ALL = Window(T0, T0 + 10 * HOUR)
NEXT = Window(ALL.end, ALL.end + HOUR)

Change = Callable[..., None]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Set settings by their variables."""

    def change(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    return change


@pytest.fixture
def lake(home: Path) -> Lake:
    """Ten hours computed by the definition of the settings."""
    lake = Lake.open()
    require_same(lake, ALL)
    for dataset in (RAW, EVENTS, ACTIVITY, NEIGHBOURS):
        lake.mark_complete(dataset, ALL, rows=9)
    return lake


def test_the_same_definition_goes_on(lake: Lake) -> None:
    require_same(lake, NEXT)
    assert lake.covered(EVENTS) == [ALL]


@pytest.mark.parametrize(
    "variable", [{"NEARLINE_SEQUENCE_LENGTH": "50"}, {"NEARLINE_DOMAIN": "commerce"}]
)
def test_another_definition_is_refused_and_told(
    lake: Lake, change: Change, variable: dict[str, str]
) -> None:
    change(**variable)
    [(name, value)] = variable.items()
    told = f"{name} was .*, is {value}.* --start 2026-05-01T00:00Z --end 2026-05-01T10:00Z"
    with pytest.raises(BadInput, match=told):
        require_same(lake, NEXT)
    with pytest.raises(BadInput):
        require_same(lake, Window(T0 + HOUR, ALL.end))
    assert lake.covered(EVENTS) == [ALL]


def test_a_domain_file_that_was_edited_is_another_one(
    home: Path, change: Change, tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    text = "name: shop\nevent_types:\n  view: {positive: true, weight: 1}\nfunnel: [view]\n"
    file.write_text(text)
    change(NEARLINE_DOMAIN=str(file))
    lake = Lake.open()
    require_same(lake, ALL)
    lake.mark_complete(EVENTS, ALL, rows=9)
    edited = tmp_path / "edited.yaml"
    edited.write_text(text.replace("weight: 1", "weight: 2"))
    change(NEARLINE_DOMAIN=str(edited))
    with pytest.raises(BadInput, match="sha256"):
        require_same(lake, NEXT)


def test_all_hours_computed_again_take_a_new_definition(lake: Lake, change: Change) -> None:
    ended_early = Progress(lake, Window(T0, T0 + 24 * 9 * HOUR))
    ended_early._write("spark", ALL.end, 9)
    change(NEARLINE_SEQUENCE_LENGTH="50")
    require_same(lake, Window(T0, NEXT.end))
    assert lake.covered(EVENTS) == lake.covered(ACTIVITY) == []
    assert lake.covered(RAW) == lake.covered(NEIGHBOURS) == [ALL]
    assert ended_early._read("spark") == (None, 0)
    require_same(lake, NEXT)
