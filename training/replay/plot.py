"""A replay as one picture: what each clock is worth, what accuracy costs, how answers age."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.replay.ages import AGES

ENOUGH = 200
"""Events of an age; fewer say nothing."""

INK, ACCENT, MUTED = "#22313f", "#d35400", "#95a5a6"

MARKERS = "osD^vP*X<>p"

LEAST_SECONDS = 0.01
"""What costs less is drawn there: a logarithm knows no nothing."""


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draw a report (see `report.report`) as a PNG at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ((bars, costs), (states, models)) = plt.subplots(
        2, 2, figsize=(16, 11), layout="constrained"
    )
    compared = [row for row in report["policies"] if row["shared"]]
    draw_bars(bars, report)
    draw_costs(costs, compared, report.get("frontier", []))
    draw_ages(states, compared, "state")
    draw_ages(models, compared, "model")
    for axes in (bars, costs, states, models):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_bars(axes: Any, report: dict[str, Any]) -> None:
    """The best on top; below them, hatched, what is not compared: its events are not the others'.

    What foresaw nothing is left out.
    """
    count, whole = report["compared"]["events"], report["data"]["replayed"]
    alone = [row for row in report["policies"] if not row["shared"] and row["events"]]
    for row in sorted(alone, key=lambda row: row["ndcg@10"]):
        _bar(axes, f"{row['name']} ({row['events']} events)", row, row)
    compared = [row for row in report["policies"] if row["shared"]]
    for row in sorted(compared, key=lambda row: row["shared"]["ndcg@10"]):
        _bar(axes, row["name"], row, row["shared"])
    _title(axes, f"How well each policy foresees {_share(count, whole)}")
    axes.set_xlabel("NDCG@10, with 95 % interval")


def _share(count: int, whole: int) -> str:
    return f"all {whole} events" if count == whole else f"the first {count} of {whole} events"


def _bar(axes: Any, label: str, row: dict[str, Any], figures: dict[str, Any]) -> None:
    value, (low, high) = figures["ndcg@10"], figures["interval"]
    axes.barh(
        label,
        value,
        xerr=[[max(value - low, 0)], [max(high - value, 0)]],
        color=MUTED if row["encoder"] is None else ACCENT,
        alpha=1 if row["shared"] else 0.4,
        hatch=None if row["shared"] else "//",
        ecolor=INK,
    )


def draw_ages(axes: Any, rows: Sequence[dict[str, Any]], part: str) -> None:
    """What each policy has of the one whose state, or model, is the freshest, by age."""
    names = list(AGES)
    drawn = [(row, _aged(row[f"by_{part}_age"])) for row in rows]
    drawn = [(row, points) for row, points in drawn if points]
    for number, (row, points) in enumerate(drawn):
        # Side by side, so that intervals do not cover one another.
        aside = 0.6 * (number + 0.5) / len(drawn) - 0.3
        low, high = zip(*(point["behind"] for point in points), strict=True)
        best = [point["freshest"] for point in points]
        apart = [point["ndcg@10"] - point["freshest"] for point in points]
        axes.errorbar(
            [names.index(point["age"]) + aside for point in points],
            [1 + each / of for each, of in zip(apart, best, strict=True)],
            yerr=[
                [max(a - e, 0) / of for a, e, of in zip(apart, low, best, strict=True)],
                [max(e - a, 0) / of for a, e, of in zip(apart, high, best, strict=True)],
            ],
            label=row["name"],
            color=_color(number),
            marker=MARKERS[number % len(MARKERS)],
            linewidth=1,
            elinewidth=1,
        )
    axes.axhline(1, color=MUTED, linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylabel("share of its NDCG@10")
    _title(axes, f"By age of the {part}, against the policy whose {part} is the newest (= 1)")
    if drawn:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _aged(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that say something: of enough events, and not of the freshest itself."""
    enough = [p for p in points if p["events"] >= ENOUGH and p["freshest"]]
    itself = all(p["ndcg@10"] == p["freshest"] and not any(p["behind"]) for p in enough)
    return [] if itself else enough


def _color(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"].colors[number % 20]  # type: ignore[attr-defined]


def draw_costs(axes: Any, rows: Sequence[dict[str, Any]], frontier: Sequence[str]) -> None:
    """Accuracy against cost on the same events; each policy is named beside the axes."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    places = {row["name"]: _place(row["shared"]) for row in rows}
    axes.set_xscale("log")
    best = [places[name] for name in frontier]
    axes.plot([x for x, _ in best], [y for _, y in best], color=ACCENT, zorder=1)
    for name, (x, y) in places.items():
        axes.scatter(x, y, color=ACCENT if name in frontier else MUTED, zorder=2)
    low, high = axes.get_ylim()
    ordered = sorted(places, key=lambda name: places[name][1])
    heights = spread([(places[name][1] - low) / (high - low) for name in ordered])
    for name, height in zip(ordered, heights, strict=True):
        axes.annotate(
            name,
            places[name],
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=ACCENT if name in frontier else INK,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkB": 4},
        )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _title(axes, "Accuracy against cost, and its frontier")
    axes.set_xlabel("CPU seconds after the first night (log)")
    axes.set_ylabel("NDCG@10")


def _place(shared: dict[str, Any]) -> tuple[float, float]:
    return max(shared["compute_seconds"], LEAST_SECONDS), shared["ndcg@10"]


def spread(heights: Sequence[float], *, apart: float = 0.055) -> list[float]:
    """Ascending heights (shares of the axes), moved up so that none is nearer than `apart`.

    What then stands above the top is moved down, as far as the others leave room.
    """
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + apart) if found else height)
    top = 1.0
    for place in reversed(range(len(found))):
        found[place] = min(found[place], top)
        top = found[place] - apart
    return found


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", color=INK)
