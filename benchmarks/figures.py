"""Draws what the benchmarks measured: the hour after a long history, and a backfill by size."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.harness import run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"short": "#9db4c0", "long": "#253237"}


def draw(history: dict[str, Any], backfill: dict[str, Any], path: Path) -> None:
    """Write a picture of two panels, by the ending of `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "nearline", "font.size": 9}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        _draw_history(left, history)
        _draw_backfill(right, backfill)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
        pyplot.close(figure)


def _draw_history(axes: "Axes", history: dict[str, Any]) -> None:
    steps = history["steps"]
    for which, shift in (("short", -0.2), ("long", 0.2)):
        places = [place + shift for place in range(len(steps))]
        seconds = [step[f"{which}_s"] for step in steps]
        label = f"after {history[f'{which}_days']} days"
        axes.bar(places, seconds, width=0.4, color=_COLOURS[which], label=label)
    for place, step in enumerate(steps):
        axes.annotate(f"{step['ratio']:.2f}", (place, max(step["short_s"], step["long_s"])))
    axes.set_xticks(range(len(steps)), [step["step"].replace("_", "\n") for step in steps])
    axes.set_ylabel("seconds, median")
    axes.set_title("one more hour")
    axes.legend(frameon=False)


def _draw_backfill(axes: "Axes", backfill: dict[str, Any]) -> None:
    measured = [each for each in backfill["steps"] if each["events"]]
    for step in dict.fromkeys(each["step"] for each in measured):
        points = [each for each in measured if each["step"] == step]
        millions = [each["events"] / 1e6 for each in points]
        axes.plot(millions, [each["seconds"] for each in points], marker="o", label=step)
    axes.set_xlabel("million events")
    axes.set_ylabel("seconds")
    axes.set_title("backfill")
    axes.legend(frameon=False)


def main(
    history: Annotated[Path, typer.Argument(help="What history --json printed.")],
    backfill: Annotated[Path, typer.Argument(help="What backfill --json printed.")],
    to: Annotated[Path, typer.Option(help="The picture, .svg or .png.")] = Path(
        "docs/figures/benchmarks.svg"
    ),
) -> None:
    """Draw two benchmarks as one picture.

    Example: python -m benchmarks.figures history.json backfill.json --to benchmarks.svg
    """
    draw(json.loads(history.read_text()), json.loads(backfill.read_text()), to)


if __name__ == "__main__":
    run(main)
