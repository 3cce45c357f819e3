"""The report: what counts as a change, and the files it makes."""

import json
from pathlib import Path

import pytest

from pipeline.demo.plot import plot_report
from pipeline.demo.report import Report


def lookup(*items: str) -> dict[str, object]:
    return {"source": "live", "items": [{"item_id": item, "title": item} for item in items]}


@pytest.mark.parametrize(
    ("after", "learned", "new_release", "changed"),
    [
        (("a", "c"), ("c", "a"), True, (False, True)),
        (("c", "a"), ("c", "a"), True, (True, False)),
        (("a", "d"), ("d", "a"), False, (True, False)),
    ],
    ids=["only what was rated is gone", "another order", "no new release"],
)
def test_leaving_out_what_was_rated_is_no_change(
    after: tuple[str, ...],
    learned: tuple[str, ...],
    new_release: bool,
    changed: tuple[bool, bool],
) -> None:
    report = Report()
    report.lookups = {
        "known": lookup("a", "b", "c"),
        "known_after_feedback": lookup(*after),
        "known_after_nearline": lookup(*learned),
    }
    report.compare({"b"}, new_release=new_release)
    assert (report.changed_after_feedback, report.changed_after_nearline) == changed


def test_steps_are_timed_and_the_report_is_written(home: Path) -> None:
    report = Report(baselines={"popular": {"ndcg@10": 0.03}}, freshness_seconds={"live": 0.02})
    with report.step("load") as tell:
        tell("half way")
    written = json.loads(report.write().read_text())
    assert [step["name"] for step in written["steps"]] == ["load"]
    assert set(written) >= {"events", "airflow_runs", "releases", "lookups", "latency_ms"}
    picture = plot_report(report, home / "report.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
