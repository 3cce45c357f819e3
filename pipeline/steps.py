"""The steps of the ring, each a function of a window: what tasks and commands call.

Rooms hand over hours of the lake and names of releases. The heavy imports are inside, so that a
scheduler reads its DAGs and the command shows its help without loading Spark or torch.
"""

from nearline.console import progress
from nearline.lake import EVENTS, Lake
from nearline.releases import ReleaseStore
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor

# Every hour: arrivals become features


def close_hours(window: Window) -> int:
    """Turn the journals of accepted events into raw partitions; returns the raw rows."""
    from nearline.intake import close_hours as close

    with progress(f"intake: close {window}"):
        return close(window)


def spark_features(window: Window) -> int:
    """Clean what arrived, aggregate and sequence it; returns the events that were accepted."""
    from spark_jobs.jobs import run_features

    with progress(f"Spark: clean and aggregate {window}"):
        return run_features(window).accepted


def dbt_marts(window: Window) -> int:
    """Build and test the marts, publish the feature marts; returns the feature rows written."""
    from pipeline.marts import build_marts

    with progress(f"dbt: build and test the marts of {window}"):
        return sum(build_marts(window).rows.values())


def materialize(window: Window) -> int:
    """Bring the features of a window online; returns the rows that landed."""
    from pipeline.online import materialize as bring_online

    with progress(f"Feast: materialize {window}"):
        return sum(bring_online(window).rows.values())


def feature_drift(window: Window) -> int:
    """Compare the features of the last day with the days before; returns how many drifted."""
    from pipeline.drift import watch_features

    with progress(f"drift: features of {window}"):
        return len(watch_features(window))


# Every night: the whole model


def item_neighbours(window: Window) -> int:
    """Item-to-item co-occurrence up to a window's end, brought online; returns the rows there."""
    from pipeline.online import materialize_neighbours
    from spark_jobs.jobs import run_cooccurrence
    from spark_jobs.pairs import COOCCURRENCE

    with progress(f"Spark: co-occurrence of {window}"):
        run_cooccurrence(unfinished(COOCCURRENCE, window))
    with progress("Feast: materialize item neighbours"):
        return materialize_neighbours(window.end)


def unfinished(dataset: str, window: Window) -> Window:
    """`window`, and what a dataset lacks of the history before it: all, or a night that failed."""
    lake = Lake.open()
    past = history(window)
    events = [known.start for known in lake.covered(EVENTS)]
    since = lake.watermark(dataset) or min(events, default=window.start)
    return Window(min(window.start, max(since, past.start)), window.end)


def train(window: Window) -> str:
    """Learn the whole model again from the history that ends with `window`; returns the release."""
    from training.nightly import train_nightly

    Lake.open().require_complete(EVENTS, Window.trailing(window.end, hours=1))
    with progress(f"training: the night that ends {window.end:%Y-%m-%dT%H:%M}Z"):
        return train_nightly(history(window))


def history(window: Window) -> Window:
    """What the nightly training learns from: `history_days` up to the window's end."""
    return Window.trailing(window.end, hours=24 * settings().history_days)


# After every hour of features: the nearline model


def finetune(window: Window) -> str | None:
    """Tune the active release on what arrived since its data ended; returns the new release.

    None, at little cost, when there is nothing active to tune or nothing new arrived.
    """
    from training.finetune import finetune as tune

    store = ReleaseStore.open()
    parent = store.active()
    if parent is None:
        return None
    unlearned = since(store.load(parent).manifest.window, window)
    if unlearned is None:
        return None
    with progress(f"fine-tune: {parent} on {unlearned}"):
        return tune(unlearned, parent)


def since(learned: Window, arrived: Window) -> Window | None:
    """The hours to tune on: all from where the parent's data ended, up to what has arrived.

    The last hour that the parent learned counts again where it arrived again: it may have been
    closed early. Older hours that were computed again are left to the night; None if it is only
    those.
    """
    start = min(learned.end, max(arrived.start, learned.end - HOUR))
    return Window(start, arrived.end) if start < arrived.end else None


# A new release goes live


def push(version: str) -> int:
    """Encode the users of the last days with a release's encoder; push them and its items."""
    from pipeline.online import push_embeddings
    from pipeline.publish import active_users

    with progress(f"Feast: push the vectors of {version}"):
        user_ids, vectors = active_users(version)
        return sum(push_embeddings(version, user_ids, vectors).rows.values())


def promote(version: str) -> None:
    """Move the pointer, so that serving swaps to `version`.

    A nearline release needs its parent to be active still. Raises ReleaseRefused for one that was
    overtaken, or that the gate refused.
    """
    store = ReleaseStore.open()
    manifest = store.load(version).manifest
    store.promote(version, expect_parent=manifest.parent if manifest.kind == "hourly" else None)


def passed(version: str) -> bool:
    """Whether the gate lets a release go live."""
    return ReleaseStore.open().load(version).manifest.promoted


# Every day: what nobody needs any more


def housekeeping(window: Window) -> dict[str, int]:
    """Remove releases beyond `keep_releases`, and journals whose hours were closed long ago."""
    from nearline.intake import prune_journals

    before = hour_floor(window.end) - settings().late_hours * HOUR
    return {
        "releases": len(ReleaseStore.open().prune(keep=settings().keep_releases)),
        "journals": prune_journals(before),
    }
