"""The report as one picture: how good, how fresh, and where the time went."""

from pathlib import Path
from typing import Any

from pipeline.demo.report import HEADLINE, Report

INK, ACCENT, MUTED = "#22313f", "#d35400", "#95a5a6"


def plot_report(report: Report, path: Path) -> Path:
    """Draw a report as a PNG at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (quality, clocks, runs) = plt.subplots(
        1, 3, figsize=(16, 4.5), width_ratios=(4, 2, 4), layout="constrained"
    )
    _quality(quality, report)
    _clocks(clocks, report)
    _steps(runs, report)
    for axes in (quality, clocks, runs):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _quality(axes: Any, report: Report) -> None:
    nightly = [r["metrics"] for r in report.releases if r["kind"] == "nightly"]
    methods = report.baselines | ({"Nearline": nightly[-1]} if nightly else {})
    scores = {name: metrics.get(HEADLINE, 0.0) for name, metrics in methods.items()}
    ordered = sorted(scores, key=scores.__getitem__)
    colours = [ACCENT if name == "Nearline" else MUTED for name in ordered]
    bars = axes.barh(ordered, [scores[name] for name in ordered], color=colours)
    axes.bar_label(bars, fmt="%.4f", padding=3, color=INK)
    axes.margins(x=0.2)
    axes.set_title("Next item, newest events", loc="left", color=INK)
    axes.set_xlabel("NDCG@10")


def _clocks(axes: Any, report: Report) -> None:
    names, seconds = list(report.freshness_seconds), list(report.freshness_seconds.values())
    axes.bar(names, seconds, color=[ACCENT, INK, MUTED][: len(names)])
    axes.set_yscale("log")
    axes.set_title("From event to answer, by clock", loc="left", color=INK)
    axes.set_ylabel("seconds (log)")


def _steps(axes: Any, report: Report) -> None:
    at = 0.0
    for row, step in enumerate(report.steps):
        axes.barh(row, step["seconds"], left=at, color=INK)
        at += step["seconds"]
    axes.set_yticks(range(len(report.steps)), [step["name"] for step in report.steps])
    axes.invert_yaxis()
    axes.set_title("Where the time went", loc="left", color=INK)
    axes.set_xlabel("seconds since the start")
