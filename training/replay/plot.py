"""A replay as one picture: what each clock is worth, how answers age, what accuracy costs."""

from pathlib import Path
from typing import Any

INK, ACCENT, MUTED = "#22313f", "#d35400", "#95a5a6"


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draw a report (see `report.report`) as a PNG at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in report["policies"] if row["events"]]
    figure, (bars, ages, costs) = plt.subplots(
        1, 3, figsize=(17, 5), width_ratios=(4, 4, 4), layout="constrained"
    )
    _bars(bars, rows)
    _ages(ages, rows)
    _costs(costs, rows, report.get("frontier", []))
    for axes in (bars, ages, costs):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: row["ndcg@10"])
    values = [row["ndcg@10"] for row in ordered]
    low = [max(row["ndcg@10"] - row["interval"][0], 0) for row in ordered]
    high = [max(row["interval"][1] - row["ndcg@10"], 0) for row in ordered]
    colours = [MUTED if row["encoder"] is None else ACCENT for row in ordered]
    axes.barh([row["name"] for row in ordered], values, xerr=[low, high], color=colours, ecolor=INK)
    axes.set_title("How well each policy foresees", loc="left", color=INK)
    axes.set_xlabel("NDCG@10, with 95 % interval")


def _ages(axes: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for kind, line in (("by_state_age", "-"), ("by_model_age", ":")):
            points = [point for point in row[kind] if point["freshest"] > 0]
            shares = [point["ndcg@10"] / point["freshest"] for point in points]
            if len(points) > 1 and any(share != 1 for share in shares):
                label = f"{row['name']}, {'state' if line == '-' else 'model'}"
                axes.plot([p["age"] for p in points], shares, line, marker="o", label=label)
    axes.axhline(1, color=MUTED, linewidth=1)
    axes.tick_params(axis="x", rotation=40)
    axes.set_title(
        "What is left by age, the freshest on the same events = 1", loc="left", color=INK
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def _costs(axes: Any, rows: list[dict[str, Any]], frontier: list[str]) -> None:
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        cost, on = max(row["compute_seconds"], 0.01), row["name"] in frontier
        axes.scatter(cost, row["ndcg@10"], color=ACCENT if on else MUTED, zorder=2)
        axes.annotate(row["name"], (cost, row["ndcg@10"]), fontsize=7, color=INK)
    best = [by_name[name] for name in frontier]
    axes.plot(
        [max(r["compute_seconds"], 0.01) for r in best], [r["ndcg@10"] for r in best], color=ACCENT
    )
    axes.set_xscale("log")
    axes.set_title("Accuracy against cost, and its frontier", loc="left", color=INK)
    axes.set_xlabel("CPU seconds after the first night (log)")
