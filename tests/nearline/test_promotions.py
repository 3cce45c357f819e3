"""The file of promotions: what it may say, and what is refused with its reason."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearline.errors import ConfigError
from nearline.promotions import MOST_PROMOTIONS, open_promotions, parse_promotions

WHEN = "from: 2026-01-02T00:00Z, until: 2026-01-03"


def test_a_file_is_read_in_the_order_of_places(tmp_path: Path) -> None:
    text = (
        f'- {{item_id: "50", place: 3, {WHEN}, surfaces: [home]}}\n'
        f"- {{item_id: b, place: 1, {WHEN}, categories: [noir]}}\n"
    )
    first, second = parse_promotions(text, tmp_path)
    assert (first.item_id, first.place) == ("b", 1)
    assert first.since == datetime(2026, 1, 2, tzinfo=UTC)
    assert first.until == datetime(2026, 1, 3, tzinfo=UTC)
    assert first.fits("anywhere", {"noir", "farce"})
    assert not first.fits("anywhere", {"farce"})
    assert second.fits("home", ())
    assert not second.fits(None, ())


@pytest.mark.parametrize("text", [None, "", "[]"])
def test_no_file_and_an_empty_one_promote_nothing(home: Path, text: str | None) -> None:
    if text is not None:
        (home / "promotions.yaml").write_text(text)
    assert open_promotions() == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"- {{item_id: a, place: 0, {WHEN}}}", "place"),
        (f"- {{item_id: a, {WHEN}}}", "place"),
        ("- {item_id: a, place: 1, from: 2026-01-02, until: 2026-01-02}", "not later than from"),
        ("- {item_id: a, place: 1, from: soon, until: 2026-01-02}", "from"),
        ("- {item_id: a, place: 1, from: 2026-13-01, until: 2026-01-02}", "month must be in 1..12"),
        (f"- {{item_id: a, place: 1, {WHEN}, weight: 2}}", "weight"),
        ("a: [", "promotions"),
        ("just words", "promotions"),
        (f"- {{item_id: a, place: 1, {WHEN}}}\n" * (MOST_PROMOTIONS + 1), "200"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_promotions(text, tmp_path / "promotions.yaml")
