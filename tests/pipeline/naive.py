"""Every feature of a moment, computed anew from the events before it.

Written from the definitions, not from the SQL: no partials, no rolling sums, one pass over a
frame for each key and moment. It is slow and plain, and what the pipeline is measured against.

`events` is a frame with the columns of EVENT_SCHEMA, duplicates and refused events left out;
`categories` tells the categories of each item of the catalogue. A moment is the end of an hour.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pandas as pd

from nearline.domains import Domain

HOUR = pd.Timedelta(hours=1)
HALF_HOUR = pd.Timedelta(minutes=30)
WINDOWS = {"1h": 1, "24h": 24, "7d": 168, "30d": 720}
Features = dict[str, Any]


def of_user(events: pd.DataFrame, user: str, at: datetime, domain: Domain) -> Features:
    """user_activity."""
    mine = _last(events[events.user_id == user], at, 720)
    found = _counts(mine, at, touched="item_id", name="item_touches")
    positive = mine[mine.event_type.isin(domain.positive)]
    found |= {f"positive_events_{w}": len(_last(positive, at, h)) for w, h in WINDOWS.items()}
    for window, hours in WINDOWS.items():
        found[f"active_hours_{window}"] = _last(mine, at, hours).hour.nunique()
    found["decayed_weight"] = _decayed(mine, at, 24, _weights(mine, domain))
    found["last_event_ts"] = mine.event_ts.max() if len(mine) else None
    # Seconds of whole seconds: the newest event's own fraction does not count.
    found["recency_seconds"] = (
        int((at - mine.event_ts.max().floor("s")).total_seconds()) if len(mine) else None
    )
    return found | _by_type(mine, at, domain)


def of_item(
    events: pd.DataFrame, item: str, at: datetime, domain: Domain, created: datetime | None
) -> Features:
    """item_popularity; `created` is None for an item that the catalogue lacks."""
    its = _last(events[events.item_id == item], at, 720)
    found = _counts(its, at, touched="user_id", name="user_touches")
    found["velocity"] = (found["events_24h"] + 1) / (found["events_7d"] / 7 + 1)
    scaled = [
        value
        for kind, rows in its.groupby("event_type")
        for value in _scaled(rows, domain, str(kind))
    ]
    found["mean_value_30d"] = (sum(scaled) + 5) / (len(scaled) + 10)
    found["age_hours"] = (
        None if created is None else max(0.0, (at - created).total_seconds() / 3600)
    )
    found["decayed_weight"] = _decayed(its, at, 24, _weights(its, domain))
    return found | _by_type(its, at, domain)


def habits(events: pd.DataFrame, user: str, at: datetime) -> Features:
    """user_habits. A session that began before the 30 days lends its events, not itself."""
    mine = events[(events.user_id == user) & (events.event_ts < at)].sort_values("event_ts")
    gaps = mine.event_ts.diff()
    begins = mine[gaps.isna() | (gaps > HALF_HOUR)]
    active = gaps.where(gaps <= HALF_HOUR, pd.Timedelta(0)).fillna(pd.Timedelta(0))
    month = _last(mine, at, 720)
    sessions = {w: len(_last(begins, at, WINDOWS[w])) for w in ("24h", "7d", "30d")}
    hours = Counter(month.event_ts.dt.hour)
    weekend = (month.event_ts.dt.dayofweek >= 5).sum()
    return {
        **{f"sessions_{w}": n for w, n in sessions.items()},
        "session_events_30d": len(month) / max(sessions["30d"], 1),
        "session_seconds_30d": active[month.index].sum().total_seconds() / max(sessions["30d"], 1),
        "hours_of_day": [hours[h] / max(len(month), 1) for h in range(24)],
        "weekend_share": weekend / max(len(month), 1),
    }


def affinity(
    events: pd.DataFrame,
    user: str,
    at: datetime,
    domain: Domain,
    categories: Mapping[str, list[str]],
) -> Features:
    """user_category_affinity."""
    mine = _last(events[events.user_id == user], at, 720)
    scores: dict[str, float] = defaultdict(float)
    faded = _faded(mine, at, 168) * _weights(mine, domain)
    for item, weight in zip(mine.item_id, faded, strict=True):
        for category in categories.get(item, []):
            scores[category] += weight
    scores = {name: score for name, score in scores.items() if score > 0}
    total, shares = sum(scores.values()), {}
    if scores:
        shares = {name: score / total for name, score in scores.items()}
    ranked = sorted(shares, key=lambda name: (-round(scores[name], 6), name))[:20]
    entropy = -sum(share * math.log(share) for share in shares.values())
    return {
        "categories": ranked,
        "affinities": [shares[name] for name in ranked],
        "distinct_categories": len(shares),
        "diversity": entropy / math.log(len(shares)) if len(shares) > 1 else 0.0,
    }


def searches(events: pd.DataFrame, user: str, at: datetime) -> Features:
    """user_searches."""
    mine = _last(events[(events.user_id == user) & events["query"].notna()], at, 720)
    mine = mine.assign(
        query=[" ".join(text.lower().split())[:100].strip() for text in mine["query"]]
    )
    mine = mine[mine["query"] != ""]
    scores: dict[str, float] = defaultdict(float)
    for query, faded in zip(mine["query"], _faded(mine, at, 168), strict=True):
        scores[query] += faded
    ranked = sorted(scores, key=lambda query: (-round(scores[query], 6), query))[:20]
    newest = mine[mine.event_ts == mine.event_ts.max()]
    return {
        "queries": ranked,
        "scores": [scores[query] for query in ranked],
        "last_query": min(newest["query"]) if len(newest) else None,
        "searches_24h": len(_last(mine, at, 24)),
        "searches_30d": len(mine),
    }


def conversion(events: pd.DataFrame, item: str, at: datetime, domain: Domain) -> Features:
    """item_conversion."""
    on_items = events[events.item_id.notna()]

    def rate(step: str, goal: str, hours: int) -> float:
        recent = _last(on_items, at, hours)
        site = Counter(recent.event_type)
        own = Counter(recent[recent.item_id == item].event_type)
        usual = min(1.0, site[goal] / site[step]) if site[step] else 0.0
        return min(1.0, (own[goal] + 20 * usual) / (own[step] + 20))

    funnel = domain.funnel
    steps = list(pairwise(funnel))
    rates = {w: [rate(a, b, WINDOWS[w]) for a, b in steps] for w in ("7d", "30d")}
    return {
        "steps": funnel,
        "step_rates_7d": rates["7d"],
        "step_rates_30d": rates["30d"],
        "click_through_30d": rates["30d"][0],
        "conversion_30d": rate(funnel[0], funnel[-1], 720),
    }


def trending(
    events: pd.DataFrame, at: datetime, domain: Domain, catalogue: Iterable[str]
) -> dict[str, float]:
    """The scores of trending: each item of the catalogue that has one."""
    recent = _last(events[events.item_id.isin(list(catalogue))], at, 168)
    faded = _faded(recent, at, 24) * _weights(recent, domain)
    scores = faded.groupby(recent.item_id).sum()
    return {str(item): score for item, score in scores.items() if score > 0}


def sequence(
    events: pd.DataFrame, user: str, at: datetime, domain: Domain, length: int
) -> Features:
    """user_sequence."""
    mine = events[(events.user_id == user) & (events.event_ts < at) & events.item_id.notna()]
    mine = mine[mine.event_type.isin(domain.telling)].sort_values(["event_ts", "event_id"])
    takes = mine[mine.event_type.isin(domain.taking)]
    mine = mine.tail(length)
    return {
        "taken_item_ids": takes.item_id[::-1].drop_duplicates().tolist(),
        "item_ids": mine.item_id.tolist(),
        "event_types": mine.event_type.tolist(),
        "event_ts": [ts.value // 1000 for ts in mine.event_ts],
        "values": mine.value.fillna(0.0).tolist(),
    }


def _last(events: pd.DataFrame, at: datetime, hours: int) -> pd.DataFrame:
    """The events of the `hours` hours before `at`, with the start of each one's hour."""
    start = at - timedelta(hours=hours)
    found = events[(events.event_ts >= start) & (events.event_ts < at)]
    return found.assign(hour=found.event_ts.dt.floor("h"))


def _counts(events: pd.DataFrame, at: datetime, *, touched: str, name: str) -> Features:
    """Events of each window, and how many of `touched`, once for each hour and event type."""
    found = {}
    for window, hours in WINDOWS.items():
        recent = _last(events, at, hours)
        found[f"events_{window}"] = len(recent)
        touches = recent[recent[touched].notna()]
        found[f"{name}_{window}"] = len(touches[["hour", "event_type", touched]].drop_duplicates())
    return found


def _by_type(events: pd.DataFrame, at: datetime, domain: Domain) -> Features:
    """The lists by event type; `events` are those of 30 days."""
    types = list(domain.event_types)
    rows = {kind: events[events.event_type == kind] for kind in types}
    means = []
    for kind in types:
        scaled = _scaled(rows[kind], domain, kind)
        means.append((sum(scaled) + 5) / (len(scaled) + 10))
    return {
        "event_types": types,
        **{
            f"events_by_type_{w}": [len(_last(rows[kind], at, h)) for kind in types]
            for w, h in WINDOWS.items()
        },
        "shares_by_type_30d": [len(rows[kind]) / max(len(events), 1) for kind in types],
        "decayed_by_type": [float(_faded(rows[kind], at, 168).sum()) for kind in types],
        "value_sums_by_type_30d": [float(rows[kind].value.sum()) for kind in types],
        "mean_values_by_type_30d": means,
    }


def _scaled(events: pd.DataFrame, domain: Domain, kind: str) -> list[float]:
    """Values of one type on the domain's range as 0 to 1; none where it requires none."""
    value = domain.event_types[kind].value
    if value is None or not value.required:
        return []
    return [(v - value.min) / (value.max - value.min) for v in events.value.dropna()]


def _weights(events: pd.DataFrame, domain: Domain) -> pd.Series:
    return events.event_type.map({k: t.weight for k, t in domain.event_types.items()}).astype(float)


def _faded(events: pd.DataFrame, at: datetime, half_life: int) -> pd.Series:
    """What is left of each event; its age counts whole hours, from 0 in the newest."""
    age = (at - HOUR - events.hour) / HOUR
    return 0.5 ** (age / half_life)


def _decayed(events: pd.DataFrame, at: datetime, half_life: int, weights: pd.Series) -> float:
    return float((_faded(events, at, half_life) * weights).sum())
