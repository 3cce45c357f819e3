"""A replay's figures for people: tables of what was compared, lines for what was not."""

from typing import Any

from nearline.console import out, print_table

_SAME_MODEL = "in the first period, which is left out, all methods are the same model"


def show_events(found: dict[str, Any]) -> None:
    """The report of a replay of events."""
    data, count = found["data"], found["compared"]["events"]
    title = f"replay of {data['replayed']} of {data['events']} events from {data['start']}"
    if count < data["replayed"]:
        title += f"\ncompared on the first {count}, until {found['compared']['until']}"
    rows = [row for row in found["policies"] if row["shared"]]
    if rows:
        against = rows[0]["difference"]["to"]
        columns = ["policy", "NDCG@10", "95 %", "recall@10", "CPU s", f"against {against}"]
        rows.sort(key=lambda row: row["shared"]["compute_seconds"])
        print_table(title, columns, [_cells(row) for row in rows])
    else:
        out.print(f"{title}: there was no time to compare any policies", highlight=False)
    if found["forgetting"]:
        _show_memory(found["forgetting"])
    _show_left_out(found["left_out"])
    _show_night(found)
    _show_cut(found["cut"])
    if "frontier" in found:
        out.print(f"frontier: {', '.join(found['frontier'])}", highlight=False)
    if "recommended" in found:
        out.print(f"recommended: {found['recommended']['why']}", highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    shared = row["shared"]
    return [
        row["name"],
        f"{shared['ndcg@10']:.4f}",
        "{:.4f}–{:.4f}".format(*shared["interval"]),
        f"{shared['recall@10']:.4f}",
        f"{shared['compute_seconds']:.1f}",
        _edges(row["difference"]["interval"]),
    ]


def _edges(interval: list[float]) -> str:
    """An interval of a difference."""
    low, high = interval
    return f"{low:+.4f} to {high:+.4f}"


def _show_left_out(left_out: list[dict[str, Any]]) -> None:
    """The policies that were not compared, and why."""
    if left_out:
        told = ", ".join(f"{row['name']} ({row['events'] or 'no'} events)" for row in left_out)
        out.print(f"not compared, as time ran out too early: {told}", highlight=False)


def _show_night(found: dict[str, Any]) -> None:
    """What a first night that was cut short means."""
    if found["night_cut"]:
        out.print(
            f"the first night was cut short, after {found['night_passes']:.1f} passes: with more "
            "--max-minutes it is learned again, and all models are played anew",
            highlight=False,
        )


def _show_cut(cut: list[str]) -> None:
    """What there was no time for, and how to go on."""
    if cut:
        names = ", ".join(cut)
        out.print(f"time ran out for {names}: the same command again goes on", highlight=False)


def _show_memory(forgetting: list[dict[str, Any]]) -> None:
    """What each model forgot."""
    rows = [
        [row["model"], row["ndcg@10"], row["first_night"], _edges(row["difference"])]
        for row in forgetting
    ]
    columns = ["model", "NDCG@10", "first night", "difference, 95 %"]
    print_table("what is left of the time before the replay", columns, rows)


def show_periods(found: dict[str, Any]) -> None:
    """The report of periods: a table of each number of periods that some methods reached."""
    for table in found["compared"]:
        columns = ["method", "recall@20", "MRR@20", "CPU s", f"recall against {table['to']}"]
        rows = [
            [row["name"], row["recall@20"], row["mrr@20"], row["compute_seconds"], _ahead(row)]
            for row in table["methods"]
        ]
        title = f"periods 2 to {table['periods']} of {found['data']['periods']}; {_SAME_MODEL}"
        print_table(title, columns, rows)
    told = [
        f"{row['name']} {row['recall@20']:.4f} ({row['periods']})"
        for row in found["policies"]
        if row["periods"]
    ]
    if told:
        out.print(
            f"recall@20 over all periods that each reached: {', '.join(told)}", highlight=False
        )
    _show_cut(found["cut"])


def _ahead(row: dict[str, Any]) -> str:
    difference = row["difference"]
    return f"{difference['recall@20']:+.4f} ({_edges(difference['recall_interval'])})"
