import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearline.errors import BadInput
from training.evaluation import plain_ranks
from training.recipe import Recipe
from training.replay.periods import (
    METHODS,
    Continual,
    Sessions,
    begin,
    begun_before,
    foreseeable,
    grown,
    play_period,
    play_periods,
    read_periods,
    report_periods,
)
from training.replay.store import Parts, Piece

from .conftest import tiny
from .test_command import run

ROWS = """
0 7 100
0 9 300
0 7 200
0 7 100
1 7 300
1 7 400
1 7 100
1 5 400
1 5 200
2 5 400
2 5 500
"""


def write(folder: Path, rows: str) -> Path:
    path = folder / "periods.txt.xz"
    path.write_bytes(lzma.compress(rows.strip().encode()))
    return path


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return read_periods(write(tmp_path, ROWS))


def turning(*, periods: int = 4) -> Sessions:
    """Thirty sessions a period: half go round ten items, half round ten of the period's own."""
    rows = [
        (period, 100 * period + number, 10 * ((period * (number % 2)) % 4) + (number + step) % 10)
        for period in range(periods)
        for number in range(30)
        for step in range(4)
    ]
    periods_, sessions, items = np.array(rows).T
    order = {item: row for row, item in enumerate(dict.fromkeys(items.tolist()))}
    return Sessions(periods_, sessions, np.array([order[item] for item in items.tolist()]))


def few_passes() -> Recipe:
    recipe = tiny()
    learning = recipe.learning.model_copy(update={"epochs": 4})
    return recipe.model_copy(update={"learning": learning})


def test_sessions_keep_their_order_and_items_come_by_period(sessions: Sessions) -> None:
    assert sessions.periods.tolist() == [0] * 4 + [1] * 5 + [2] * 2
    assert sessions.sessions.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 4]
    # 100, 200, 300, then 400, then 500.
    assert sessions.items.tolist() == [0, 1, 0, 2, 3, 1, 2, 3, 0, 3, 4]
    assert [sessions.known(period) for period in range(4)] == [0, 3, 4, 5]


def test_unknown_items_are_dropped_before_a_period_is_foreseen(sessions: Sessions) -> None:
    first = sessions.tested(1)
    assert first.items.tolist() == [2, 3, 1]
    assert foreseeable(first).tolist() == [2]
    assert foreseeable(sessions.tested(2)).tolist() == []


def test_items_may_come_again(sessions: Sessions) -> None:
    data = sessions.part(sessions.periods == 0)
    targets = foreseeable(data)
    assert targets.tolist() == [1, 2]
    scores = np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]])
    assert plain_ranks(lambda part: scores[: len(part)], data, targets, items=3).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("0 1 2\n1 2\n", "line 2: '1 2' is not"),
        ("0 1 x", "line 1"),
        ("0 1 2\n1 2 12345678901234567890", "line 2: .* at most 18 digits"),
        ("0 1 2\n0 1 3", "two periods"),
    ],
)
def test_a_malformed_file_is_told(tmp_path: Path, rows: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read_periods(write(tmp_path, rows))


def test_new_items_get_rows_after_the_old_ones() -> None:
    line = Continual(turning(), "finetune", few_passes(), seed=1)
    line.learn(0)
    assert line.model is not None
    before = line.model.item_matrix()
    after = grown(line.model, 13).item_matrix()
    np.testing.assert_array_equal(before.detach(), after[:10].detach())
    np.testing.assert_array_equal(after[10].detach(), after[12].detach())


def recalls(sessions: Sessions, folder: Path, **options: float) -> dict[str, list[float]]:
    found = play_periods(
        sessions,
        METHODS,
        few_passes(),
        seed=1,
        max_minutes=options.get("minutes", 5),
        folder=folder,
    )
    rows = found["policies"]
    return {row["name"]: [one["mrr@20"] for one in row["by_period"]] for row in rows}


def test_a_period_is_foreseen_from_earlier_ones_only(tmp_path: Path) -> None:
    honest = turning()
    last = honest.periods == 3
    other = Sessions(
        honest.periods, honest.sessions, np.where(last, 39 - honest.items, honest.items)
    )
    one, two = (recalls(s, tmp_path / name) for s, name in ((honest, "one"), (other, "two")))
    for name in METHODS:
        assert one[name][:2] == two[name][:2]
        assert one[name][2] != two[name][2]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    sessions = turning()
    whole = recalls(sessions, tmp_path / "whole")
    assert recalls(sessions, tmp_path / "cut", minutes=0) == {name: [] for name in METHODS}
    for name in METHODS:
        parts = Parts(tmp_path / "cut" / name)
        first = tmp_path / "cut" / "first.line"
        begin(Continual(sessions, name, few_passes(), seed=1), parts, 0, first)
        line = Continual(sessions, name, few_passes(), seed=1)
        assert begun_before(line, parts) == 0
        play_period(line, parts, 1)
    assert recalls(sessions, tmp_path / "cut") == whole


@pytest.mark.parametrize("damaged", ["first.line", "replay/*.npz", "replay/*.line"])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    sessions = turning(periods=3)
    whole = recalls(sessions, tmp_path)
    if damaged == "first.line":  # what is read by a method that begins later
        shutil.rmtree(tmp_path / "joint")
    path = next(tmp_path.glob(damaged))
    path.write_bytes(path.read_bytes()[:100])
    assert recalls(sessions, tmp_path) == whole
    assert "cannot be read" in caplog.text


def test_methods_are_compared_in_pairs_and_one_that_is_cut_takes_nothing_from_the_others(
    tmp_path: Path,
) -> None:
    sessions, parts = turning(periods=5), {}
    rng = np.random.default_rng(0)
    for name, periods in (("replay", 4), ("finetune", 5), ("joint", 2)):
        parts[name] = Parts(tmp_path / name)
        for period in range(periods):
            count = len(foreseeable(sessions.tested(period))) if period else 0
            ranks = np.where(rng.random(count) < (0.7 if name == "replay" else 0.3), 0, 99)
            piece = Piece(ranks[None, :].astype(np.int32), np.zeros(count), 1.0, np.zeros(1))
            parts[name].write(period, piece, lambda path: path.touch())
    told = report_periods(sessions, parts, range(5), seed=1)
    replayed, tuned, joint = told["policies"]
    assert joint["difference"] == {"to": "finetune"}, "the first period is the same model's"
    assert tuned["difference"] == {
        "to": "finetune",
        "periods": 3,
        "recall@20": 0.0,
        "recall_interval": [0.0, 0.0],
        "mrr@20": 0.0,
        "mrr_interval": [0.0, 0.0],
    }
    assert [table["periods"] for table in told["compared"]] == [4, 3]
    alone, table = told["compared"]
    assert [method["name"] for method in alone["methods"]] == ["finetune"]
    shared = {method["name"]: method["recall@20"] for method in table["methods"]}
    assert list(shared) == ["replay", "finetune"]
    by_period = [one["recall@20"] for one in tuned["by_period"]]
    assert shared["finetune"] == pytest.approx(np.mean(by_period[1:3]), abs=1e-5)
    assert replayed["difference"]["periods"] == 2
    apart = shared["replay"] - shared["finetune"]
    assert replayed["difference"]["recall@20"] == pytest.approx(apart, abs=1e-5)
    low, high = replayed["difference"]["recall_interval"]
    assert 0.1 < low < replayed["difference"]["recall@20"] < high < 0.7


def test_a_file_of_periods_is_played(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    path = write(tmp_path, ROWS)
    shown = run("--periods", path, "--policies", "finetune,joint", "--json", figures)
    told = json.loads(figures.read_text())
    assert [(row["name"], row["periods"]) for row in told["policies"]] == [
        ("finetune", 1),
        ("joint", 1),
    ]
    assert told["data"] == {"clicks": 11, "sessions": 5, "items": 5, "periods": 2}
    assert "over all periods that each reached: finetune" in shown
    assert told["policies"][1]["difference"] == {"to": "finetune"}
    assert told["compared"] == []
    with pytest.raises(BadInput, match="no method 'magic'"):
        run("--periods", path, "--policies", "magic")
    wrong = ["--plot", tmp_path / "p.png", "--workers", "2", "--step", "day", "--events", path]
    with pytest.raises(BadInput, match="--events, --step, --workers, --plot cannot be used with"):
        run("--periods", path, *wrong)
