"""The steps of the ring, each a function of a window: what tasks and commands call.

Rooms hand over hours of the lake and names of releases. A step that writes the lake or the online
store does so alone on this machine: the next one, of a task or a command, waits for it. The heavy
imports are inside, so that a scheduler reads its DAGs and the command shows its help without
loading Spark or torch.
"""

from dataclasses import dataclass

from nearline.console import progress, say
from nearline.errors import Overtaken, ReleaseError
from nearline.lake import EVENTS, RAW, Lake
from nearline.locks import alone
from nearline.pushed import pushed
from nearline.releases import ReleaseManifest, ReleaseStore
from nearline.settings import settings
from nearline.windows import HOUR, Window, parse_time
from pipeline.chunks import Progress
from pipeline.definition import require_same
from pipeline.due import due, later_hours_follow, make_stale
from pipeline.retention import MART_REACH, PAIR_REACH, SPARK_REACH, require_kept


@dataclass(frozen=True)
class Done:
    """What a step did: the hours, those that were due beside its window too, and what it counts."""

    window: Window
    count: int


# Every hour: arrivals become features


@alone("lake")
def close_hours(window: Window) -> Done:
    """Turn the journals of accepted events into raw partitions; counts the raw rows.

    An hour that had been closed early is stale from now on, and so is what was made of it.
    """
    from nearline.intake import close_hours as close
    from nearline.intake import closed_early

    lake, ended_at = Lake.open(), closed_early()
    if ended_at is not None and (early := Window.of_hour(ended_at)).end <= window.end:
        make_stale(lake, early)
    whole = due(lake, [RAW], window)
    with progress(f"intake: close {whole}"):
        return Done(whole, close(whole))


@alone("lake")
def spark_features(window: Window) -> Done:
    """Clean what arrived, aggregate and sequence it; counts the events that were accepted."""
    from spark_jobs.jobs import run_features
    from spark_jobs.session import spark_session

    lake = Lake.open()
    whole, chunks = due(lake, [EVENTS], window), Progress(lake, window)
    require_same(lake, whole)

    def run(chunk: Window) -> int:
        require_kept(lake, SPARK_REACH, chunk)
        with later_hours_follow(lake, chunk):
            return run_features(chunk).accepted

    with progress(f"Spark: clean and aggregate {whole}"), spark_session(settings()):
        accepted = chunks.run("spark", whole, run)
        end = due(lake, [EVENTS], whole).end
        if end > whole.end:
            chunks.run("spark-again", Window(whole.end, end), run)
    return Done(Window(whole.start, end), accepted)


@alone("lake")
def dbt_marts(window: Window) -> Done:
    """Build and test the marts, publish the feature marts; counts the rows written."""
    from pipeline.marts import FEATURES, build_marts

    lake = Lake.open()
    whole = due(lake, FEATURES.values(), window)
    require_same(lake, whole)

    def run(chunk: Window) -> int:
        require_kept(lake, MART_REACH, chunk)
        return sum(build_marts(chunk).rows.values())

    with progress(f"dbt: build and test the marts of {whole}"):
        return Done(whole, Progress(lake, window).run("dbt", whole, run))


@alone("lake")
def feature_drift(window: Window) -> Done:
    """Compare the features of the last day with the days before; counts those that drifted."""
    from pipeline.drift import watch_features
    from pipeline.summaries import FEATURE_SUMMARY

    whole = due(Lake.open(), [FEATURE_SUMMARY], window)
    with progress(f"drift: features of {whole}"):
        return Done(whole, len(watch_features(whole)))


@alone("online")
def materialize(window: Window) -> Done:
    """Bring the features of a window online; counts the rows that landed.

    The last of the steps that go in chunks: no row is read that a newer one replaces.
    """
    from pipeline.online import hourly_views
    from pipeline.online import materialize as bring_online

    lake = Lake.open()
    whole = due(lake, [f"online/{name}" for name in hourly_views()], window)
    with progress(f"Feast: materialize {whole}"):
        landed = sum(bring_online(whole).rows.values())
    Progress(lake, window).finish()
    return Done(whole, landed)


# Every night: the whole model


def item_neighbours(window: Window) -> int:
    """Item-to-item co-occurrence up to a window's end, brought online; returns the rows there."""
    from pipeline.online import materialize_neighbours
    from spark_jobs.jobs import run_cooccurrence
    from spark_jobs.pairs import COOCCURRENCE

    nights = unfinished(COOCCURRENCE, window)
    require_kept(Lake.open(), PAIR_REACH, nights)
    with alone("lake"), progress(f"Spark: co-occurrence of {nights}"):
        run_cooccurrence(nights)
    with alone("online"), progress("Feast: materialize item neighbours"):
        return materialize_neighbours(window.end)


def unfinished(dataset: str, window: Window) -> Window:
    """`window`, and what a dataset lacks of the history before it: from its first gap on."""
    lake = Lake.open()
    past = history(window)
    events = [known.start for known in lake.covered(EVENTS)]
    ends = [known.end for known in lake.covered(dataset) if known.end > past.start]
    since = min(ends or events, default=window.start)
    return Window(min(window.start, max(since, past.start)), window.end)


def train(window: Window) -> str:
    """Learn the whole model again from the history that ends with `window`; returns the release.

    Raises MissingPartition without the last hour's events, CorruptRelease where nobody can tell
    what is active: before the night, not after it.
    """
    from training.nightly import train_nightly

    ReleaseStore.open().pointer()
    Lake.open().require_complete(EVENTS, Window.trailing(window.end, hours=1))
    with progress(f"training: the night that ends {window.end:%Y-%m-%dT%H:%M}Z"):
        return train_nightly(history(window))


def history(window: Window) -> Window:
    """What the nightly training learns from: `history_days` up to the window's end."""
    return Window.trailing(window.end, hours=24 * settings().history_days)


# After every hour of features: the nearline model


def finetune(window: Window) -> str | None:
    """Tune the active release on what arrived since its data ended; returns the new release.

    None, at little cost, when there is nothing active to tune or nothing new arrived. Raises
    MissingPartition when the events of these hours are not complete.
    """
    store, lake = ReleaseStore.open(), Lake.open()
    parent = store.active()
    if parent is None:
        say("fine-tune: no release is active yet")
        return None
    hours = unlearned(lake, store.load(parent).manifest, window)
    if hours is None:
        say(f"fine-tune: {parent} has learned {window} already")
        return None
    lake.require_complete(EVENTS, hours)
    version = _tune(parent, hours) if lake.hours(EVENTS, hours) else None
    if version is None:
        say(f"fine-tune: nothing to learn in {hours}, {parent} stays")
    return version


def _tune(parent: str, hours: Window) -> str | None:
    from training.finetune import finetune as tune

    with progress(f"fine-tune: {parent} on {hours}"):
        return tune(hours, parent)


def unlearned(lake: Lake, parent: ReleaseManifest, arrived: Window) -> Window | None:
    """The hours to tune on; the parent's last hour is none of them where it is as it was learned.

    So a run that was ended after its release had gone live learns nothing twice.
    """
    hours, end = since(parent.window, arrived), parent.window_end
    if hours is None or hours.start >= end or _changed(lake, parent):
        return hours
    return Window(end, hours.end) if end < hours.end else None


def _changed(lake: Lake, parent: ReleaseManifest) -> bool:
    """Whether the last hour that a release learned may have other events now."""
    return parent.last_hour != lake.checksum(EVENTS, parent.window_end - HOUR)


def since(learned: Window, arrived: Window) -> Window | None:
    """The hours to tune on: all from where the parent's data ended, up to what has arrived.

    The last hour that the parent learned counts again where it arrived again: it may have been
    closed early. Older hours that were computed again are left to the night; None if it is only
    those.
    """
    start = min(learned.end, max(arrived.start, learned.end - HOUR))
    return Window(start, arrived.end) if start < arrived.end else None


# A new release goes live


@alone("online")
def push(version: str) -> int:
    """Encode the users of the last days with a release's encoder; push them and its items."""
    from pipeline.online import push_embeddings
    from pipeline.publish import active_users

    with progress(f"Feast: push the vectors of {version}"):
        users = active_users(version)
        done = push_embeddings(version, users.ids, users.vectors, known_until=users.known_until)
        return sum(done.rows.values())


def promote(version: str) -> bool:
    """Move the pointer, so that serving swaps to `version`; whether it moved.

    It does not where another release went live meanwhile, which `version` does not know. Raises
    ReleaseRefused for what the gate refused.
    """
    try:
        ReleaseStore.open().promote(version)
    except Overtaken as error:
        say(f"promote: {error}")
        return False
    return True


def overtaken(version: str) -> Window | None:
    """The hours to be run again on the line that is live, as `version` went live, or could not.

    Those of a nearline release that was overtaken; none of one that may go live or did, was
    refused, or was rolled back. Those that went live while a night was trained which is live now,
    and does not know them.
    """
    store = ReleaseStore.open()
    manifest, pointer = store.load(version).manifest, store.pointer()
    if manifest.kind == "nightly":
        return _unknown_to(manifest, store) if version == pointer.active else None
    seen = version in (pointer.active, *pointer.history, *pointer.withdrawn)
    if seen or not manifest.promoted or manifest.follows in (None, pointer.active):
        return None
    return manifest.window


def _unknown_to(night: ReleaseManifest, store: ReleaseStore) -> Window | None:
    """What the release that was active before had learned after the end of a night's data."""
    before = store.previous()
    try:
        until = store.load(before).manifest.window_end if before else night.window_end
    except ReleaseError:  # the next hour makes up for what is missing
        return None
    return Window(night.window_end, until) if until > night.window_end else None


def passed(version: str) -> bool:
    """Whether a release may go live: the gate let it pass, and nobody has rolled it back."""
    store = ReleaseStore.open()
    manifest = store.load(version).manifest
    if not manifest.promoted:
        say(f"the gate refuses {version}: {'; '.join(manifest.reasons)}")
    elif version in store.pointer().withdrawn:
        say(f"{version} was rolled back: it stays away until a rollback names it")
    else:
        return True
    return False


def night_wanted(window: Window, version: str | None) -> Window | None:
    """The day up to the end of the data where the active line is to have another night.

    `version` is what was tuned on the window, whatever becomes of it. None also where a night was
    asked for not long ago: see `night_asked`.
    """
    from pipeline import nights

    end = nights.data_end(window.end)
    reason = nights.why(version, end)
    if reason is None:
        return None
    say(f"a night is wanted: {reason}")
    return Window.trailing(end, hours=24)


def night_asked(end: str) -> None:
    """Remember that a night was asked for whose data end then; to be told once that is done."""
    from pipeline import nights

    active = ReleaseStore.open().active()
    if active is not None:
        nights.Asked(night=nights.night_of(active), end=parse_time(end)).keep()


def push_active() -> int:
    """Push the vectors of the active release where those of another, or not all, are online.

    That is so after a run that was ended or refused between push and promotion, and after a
    rollback; serving encodes every sequence itself meanwhile. Costs little where nothing is wrong.
    """
    store, rows = ReleaseStore.open(), 0
    while (version := store.active()) is not None and version != pushed():
        rows += push(version)
    return rows


def nearline(window: Window) -> str | None:
    """The model's hour as one: fine-tune, gate, push, promote; returns what went live, if any.

    A release that was overtaken is made again on the new line.
    """
    while (version := finetune(window)) is not None and passed(version):
        push(version)
        if promote(version):
            return version
        window = ReleaseStore.open().load(version).manifest.window
    return None
