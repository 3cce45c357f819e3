"""A replay as one picture: what each clock is worth, how answers age, what accuracy costs."""

from pathlib import Path
from typing import Any

from training.replay.ages import AGES

ENOUGH = 200
"""Events of an age; fewer say nothing."""

INK, ACCENT, MUTED = "#22313f", "#d35400", "#95a5a6"


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draw a report (see `report.report`) as a PNG at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in report["policies"] if row["events"]]
    whole = [row for row in rows if row["name"] not in report["cut"]]
    figure, (bars, ages, costs) = plt.subplots(
        1, 3, figsize=(17, 5), width_ratios=(4, 4, 4), layout="constrained"
    )
    draw_bars(bars, rows, report)
    _ages(ages, rows)
    _costs(costs, whole, report.get("frontier", []))
    for axes in (bars, ages, costs):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_bars(axes: Any, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
    """The best on top; below them, hatched, what was cut short: its events are not the others'."""
    cut = [row["name"] in report["cut"] for row in rows]
    ordered = sorted(zip(cut, rows, strict=True), key=lambda e: (not e[0], e[1]["ndcg@10"]))
    for short, row in ordered:
        value, (low, high) = row["ndcg@10"], row["interval"]
        played = f" ({row['events']} of {report['data']['replayed']})" if short else ""
        axes.barh(
            row["name"] + played,
            value,
            xerr=[[max(value - low, 0)], [max(high - value, 0)]],
            color=MUTED if row["encoder"] is None else ACCENT,
            alpha=0.4 if short else 1,
            hatch="//" if short else None,
            ecolor=INK,
        )
    axes.set_title("How well each policy foresees", loc="left", color=INK)
    axes.set_xlabel("NDCG@10, with 95 % interval")


def _ages(axes: Any, rows: list[dict[str, Any]]) -> None:
    names = list(AGES)
    for row in rows:
        for kind, line in (("by_state_age", "-"), ("by_model_age", ":")):
            points = [p for p in row[kind] if p["freshest"] > 0 and p["events"] >= ENOUGH]
            shares = [point["ndcg@10"] / point["freshest"] for point in points]
            if any(share != 1 for share in shares):
                label = f"{row['name']}, {'state' if line == '-' else 'model'}"
                places = [names.index(point["age"]) for point in points]
                axes.plot(places, shares, line, marker="o", label=label)
    axes.axhline(1, color=MUTED, linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_title(
        "What is left by age, the freshest on the same events = 1", loc="left", color=INK
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def _costs(axes: Any, rows: list[dict[str, Any]], frontier: list[str]) -> None:
    """What was played whole: a part costs less, and its events are others."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        cost, on = max(row["compute_seconds"], 0.01), row["name"] in frontier
        axes.scatter(cost, row["ndcg@10"], color=ACCENT if on else MUTED, zorder=2)
        if on:
            place, aside = (cost, row["ndcg@10"]), {"xytext": (6, -10), "ha": "left"}
            axes.annotate(row["name"], place, textcoords="offset points", fontsize=8, **aside)
    best = [by_name[name] for name in frontier]
    axes.plot(
        [max(r["compute_seconds"], 0.01) for r in best], [r["ndcg@10"] for r in best], color=ACCENT
    )
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    axes.set_title("Accuracy against cost, and its frontier", loc="left", color=INK)
    axes.set_xlabel("CPU seconds after the first night (log)")
