import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from nearline import console
from nearline.errors import BadInput, MissingPartition
from training.replay.command import replay
from training.replay.show import show_events

from .conftest import orderly


def run(*words: str | Path) -> str:
    app = typer.Typer()
    app.command()(replay)
    environment = {"COLUMNS": "200"}
    done = CliRunner(env=environment).invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """A file of somebody's events, with names of its own."""
    rows = [row.split() for row in orderly().splitlines()]
    frame = pd.DataFrame(rows, columns=["who", "item_id", "kind", "at"])
    frame["at"] = frame["at"].astype(int) + 1_767_225_600
    path = tmp_path / "clicks.csv"
    frame.drop(columns="kind").to_csv(path, index=False)
    return path


def test_a_file_of_events_is_played(clicks: Path, tmp_path: Path) -> None:
    names = ["-m", "user_id=who", "-m", "event_ts=at", "--event-type", "play", "--time-unit", "s"]
    figures, picture = tmp_path / "figures.json", tmp_path / "figures.png"
    shown = run(
        *("--events", clicks, *names, "--from-share", "0.6", "--step", "day", "--workers", "1"),
        *("--policies", "frozen/never,live/never,live/plain,popular", "--max-minutes", "5"),
        *("--seed", "3", "--json", figures, "--plot", picture),
    )
    told = json.loads(figures.read_text())
    assert [row["model"] for row in told["policies"]] == [
        "never",
        "never",
        "daily-plain",
        "popular",
    ]
    wanted = {"name", "state", "model", "encoder", "events", "ndcg@10", "interval", "recall@10"}
    assert wanted | {"compute_seconds"} <= set(told["policies"][0])
    assert {row["events"] for row in told["policies"]} == {told["data"]["replayed"]}
    assert (told["step"], told["from_share"], told["seed"], told["cut"]) == ("day", 0.6, 3, [])
    assert "recommended" in shown
    assert "live/daily-plain" in shown
    assert picture.is_file()


def test_time_that_runs_out_is_told(clicks: Path, tmp_path: Path) -> None:
    names = ["-m", "user_id=who", "-m", "event_ts=at", "--event-type", "play", "--time-unit", "s"]
    shown = run("--events", clicks, *names, "--policies", "popular", "--max-minutes", "0")
    assert "there was no time to compare any policies" in shown
    assert "not compared, as time ran out too early: popular (no events)" in shown
    assert "time ran out for popular: the same command again goes on" in shown
    assert "recommended" not in shown


def test_tables_fit_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    apart = {"to": "frozen/never", "ndcg@10": 0.044, "interval": [0.04, 0.0481]}
    shared = {"ndcg@10": 0.0793, "interval": [0.0738, 0.0846], "recall@10": 0.1566}
    long = {"name": "live/weekly+daily-replay", "difference": apart, "events": 25756}
    data = {"replayed": 30065, "events": 100000, "start": "1998-02-20T00:00:00+00:00"}
    found = {
        "data": data,
        "policies": [{**long, "shared": shared | {"compute_seconds": 1520.3}}],
        "compared": {"events": 25756, "until": "1998-04-10T00:00:00+00:00"},
        "left_out": [],
        "forgetting": [],
        "night_cut": True,
        "night_passes": 0.3,
        "cut": ["live/weekly+daily-replay"],
        "recommended": {"why": "live/never: no other clocks were compared"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.out, "_width", console.WIDTH)
        show_events(found)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "live/weekly+daily-replay │" in line]
    assert "+0.0400 to +0.0481" in line
    assert "compared on the first 25756, until 1998-04-10T00:00:00+00:00" in " ".join(lines)
    assert any("cut short, after 0.3 passes" in line for line in lines)


def test_a_picture_is_drawn_again_from_figures(clicks: Path, tmp_path: Path) -> None:
    names = ["-m", "user_id=who", "-m", "event_ts=at", "--event-type", "play", "--time-unit", "s"]
    figures, picture = tmp_path / "figures.json", tmp_path / "figures.png"
    asked = ("--policies", "popular,popular_1d", "--step", "day", "--json", figures)
    run("--events", clicks, *names, *asked)
    run("--figures", figures, "--plot", picture)
    assert picture.is_file()
    with pytest.raises(BadInput, match="name it with --plot"):
        run("--figures", figures)
    with pytest.raises(BadInput, match="--events, --json cannot be used with --figures"):
        run("--figures", figures, "--plot", picture, "--events", clicks, "--json", figures)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(BadInput, match="is not what `nearline replay --events"):
        run("--figures", tmp_path / "other.json", "--plot", picture)


def test_what_cannot_be_played_is_told_at_once(clicks: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPartition, match="give a file with --events"):
        run()
    with pytest.raises(BadInput, match="no policy 'fresh'"):
        run("--events", clicks, "--policies", "fresh")
    with pytest.raises(BadInput, match="give a file in a folder that exists"):
        run("--events", clicks, "--json", tmp_path / "no" / "out.json")
    with pytest.raises(BadInput, match="--mapping, --items cannot be used without --events"):
        run("--items", clicks, "-m", "user_id=who")
    with pytest.raises(BadInput, match="--items-mapping cannot be used without --items"):
        run("--events", clicks, "--items-mapping", "title=name")


def test_the_command_is_light() -> None:
    code = "import sys, training.replay.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
