"""The hour: a release learns what just happened, from where it stands, in seconds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from nearline.domains import load_domain
from nearline.lake import EVENTS, Lake
from nearline.releases import OF_PARENT, ReleaseStore
from nearline.sequence import Vocabulary, microseconds
from nearline.settings import settings
from nearline.windows import DAY, Window
from training import gate
from training.baselines import decay, decayed_popularity
from training.bundle import Bundle, read_bundle, with_items
from training.dataset import Interactions, by_lot, interactions, read_catalogue, read_events
from training.drift import Night, drift, night_of
from training.evaluation import Evaluation, drawn, measure, model_scorer
from training.exam import Exam
from training.learning import reproducible, warm
from training.memory import within_memory
from training.model import Model
from training.neighbours import neighbours
from training.publishing import Clock, learned_last, publish
from training.texts import encoded_by
from training.tracking import tracked

KEPT_BACK = 0.2
MOST_KEPT_BACK = 1000
"""Of the events before the window so many are never repeated: they tell what was forgotten."""

_MOST_SCORES = 50_000_000
"""New events times items that tell how well the parent foresaw them, at most."""


@dataclass(frozen=True)
class Hours:
    """Targets of a fine-tune.

    `new` lie in its window; `unseen` are those of them after all that the parent learned. `old` may
    be repeated, `kept_back` not.
    """

    new: np.ndarray
    unseen: np.ndarray
    old: np.ndarray
    kept_back: np.ndarray


def finetune(window: Window, parent: str) -> str | None:
    """Go on from `parent` with the events of `window`; returns the new release's version.

    None when no event of the window is about a known item, or when there is nothing to learn from
    them and no new item. Items that are new in the catalogue get rows after the old ones. Moves no
    pointer. Raises UnknownRelease or CorruptRelease for the parent, MissingPartition when events
    are missing, NotReady when the encoder of the parent's texts is.
    """
    config, clock, lake = settings(), Clock(), Lake.open()
    release = ReleaseStore.open().load(parent)
    bundle, learned_until = read_bundle(release), microseconds(release.manifest.window_end)
    catalogue = encoded_by(read_catalogue(lake, before=window.end), bundle.text_encoder)
    vocabulary = appended(bundle.vocabulary, catalogue)
    last_hour = learned_last(lake, window)
    events = read_events(lake, with_history(window, partial(_rows, lake)))
    data = interactions(events, vocabulary, load_domain(config.domain).positive)
    hours = split_hours(data, window, learned_until)
    if nothing_new(data, hours, window, grew=vocabulary != bundle.vocabulary):
        return None
    clock.lap("read")
    told = {"window": window, "parent": parent, "seed": config.seed}
    following = tracked("hourly", str(window), **told)
    with reproducible(config.seed), within_memory(), following as run:
        model = with_items(bundle, vocabulary.item_ids, catalogue)
        asked = drawn(data, hours.unseen, items=model.config.items, scores=_MOST_SCORES)
        foreseen = measure(model, data, asked)
        exam = Exam(data, hours.kept_back, hours.old, model.item_tower.content.words.numpy())
        kept_before = exam.ask(model_scorer(model, data))
        clock.lap("evaluate")
        link_fresh(model, data, most=bundle.learning.neighbours)
        warmed = warm(model, data, hours.new, hours.old, bundle.learning, seed=config.seed)
        clock.lap("learn the newest")
        kept = exam.ask(model_scorer(model, data))
        night = night_of(release.manifest, vocabulary.item_ids, catalogue)
        moved = drift(model, night, data, window) if night else None
        counts = popularity(
            bundle, data, learned_until, microseconds(window.end), model.config.items
        )
        clock.lap("measure")
        version = publish(
            replace(bundle, model=model, vocabulary=vocabulary, popularity=counts),
            window,
            kind="hourly",
            parent=parent,
            base=release.manifest.base,
            last_hour=last_hour,
            drift=moved,
            ranking=release.manifest.ranking,
            checks=[
                *_remembers(exam, kept, kept_before, parent=parent, night=night),
                gate.covers(kept, floor=config.gate_coverage),
                gate.keeps_coverage(
                    kept,
                    shown=kept_before.shown.sum(),
                    events=len(kept_before.ranks),
                    whom="its parent",
                ),
            ],
            metrics=_metrics(foreseen, kept, kept_before, config.seed),
            baselines={},
            counts={
                "events": len(hours.new),
                "learned": warmed.new,
                "repeated": warmed.repeated,
                "steps": warmed.steps,
            },
            clock=clock,
        )
        run.released(ReleaseStore.open().load(version).manifest)
        return version


def appended(vocabulary: Vocabulary, catalogue: pa.Table) -> Vocabulary:
    """The items of a release, then those of the catalogue that it does not know."""
    new = [i for i in catalogue["item_id"].to_pylist() if i not in vocabulary.item_row]
    return Vocabulary((*vocabulary.item_ids, *new), vocabulary.event_types)


def with_history(window: Window, events: Callable[[Window], int]) -> Window:
    """The window with the days before it that histories and repeated events are read from.

    As many days as `replay_days` says, or until `replay_events` have happened in them, as `events`
    counts them.
    """
    start, left = window.start, settings().replay_events
    for _ in range(settings().replay_days):
        if left <= 0:
            break
        left -= events(Window(start - DAY, start))
        start -= DAY
    return Window(start, window.end)


def _rows(lake: Lake, window: Window) -> int:
    return sum(manifest.rows for manifest in lake.manifests(EVENTS, window).values())


def split_hours(data: Interactions, window: Window, learned_until: int) -> Hours:
    """What is learned, what is repeated, and what only measures."""
    start = microseconds(window.start)
    new, before = data.targets(since=start), data.targets(before=start)
    unseen = new[data.times[new] >= learned_until]
    drawn_first = by_lot(data, before)
    cut = min(MOST_KEPT_BACK, int(KEPT_BACK * len(before)))
    return Hours(new, unseen, np.sort(drawn_first[cut:]), np.sort(drawn_first[:cut]))


def link_fresh(model: Model, data: Interactions, *, most: int) -> None:
    """Items that came after the night get the neighbours that they have in `data`."""
    tower = model.item_tower
    if tower.fresh.any():
        graph = neighbours(data, data.targets(), items=model.config.items, most=most)
        tower.link(tower.graph.renewed(graph, tower.fresh.numpy()))


def nothing_new(data: Interactions, hours: Hours, window: Window, *, grew: bool) -> bool:
    """Whether a release made from these hours would be its parent again."""
    happened = bool((data.times >= microseconds(window.start)).any())
    return not happened or (len(hours.new) == 0 and not grew)


def popularity(
    parent: Bundle, data: Interactions, learned_until: int, now: int, items: int
) -> np.ndarray:
    """The parent's popularity, aged, plus what happened since its data ended; float32 (items,)."""
    counts = decayed_popularity(data, items=items, now=now, since=learned_until)
    aged = parent.popularity * decay(np.array(max(now - learned_until, 0)))
    counts[: len(aged)] += aged.astype(np.float32)
    return counts


def _remembers(
    exam: Exam, kept: Evaluation, kept_before: Evaluation, *, parent: str, night: Night | None
) -> list[gate.Check]:
    """Neither the parent nor the night may have foreseen earlier events much better.

    A line of fine-tunes may lose a little in each hour: the night tells what has come of it. It is
    asked for what it has learned alone.
    """
    tolerance, seed = settings().gate_tolerance, settings().seed
    whom = "its parent"
    checks = [
        gate.remembers(kept, kept_before, whom=whom, tolerance=tolerance, seed=seed),
        gate.keeps_segments(kept, kept_before, version=whom, tolerance=tolerance, seed=seed),
    ]
    if night is not None and night.version != parent:
        known = exam.data.times[exam.targets] < microseconds(night.end)
        by_night = measure(night.model, exam.data, exam.targets[known])
        whom = f"its night {night.version}"
        checks.append(
            gate.remembers(kept.only(known), by_night, whom=whom, tolerance=tolerance, seed=seed)
        )
    return checks


def _metrics(
    foreseen: Evaluation, kept: Evaluation, kept_before: Evaluation, seed: int
) -> dict[str, float]:
    """The parent's foresight of the new hours, which the release has learned since, and how well
    the release foresees earlier events, beside its parent.
    """
    after, before = kept.metrics(seed=seed), kept_before.metrics(seed=seed)
    parents = {OF_PARENT + name: value for name, value in foreseen.metrics(seed=seed).items()}
    return parents | {
        "retention_ndcg@10": after["ndcg@10"],
        "retention_parent_ndcg@10": before["ndcg@10"],
        "retention_events": after["targets"],
        "retention_coverage@10": after["coverage@10"],
    }
