"""The night: the whole model learned again from the lake, measured, judged and published."""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from nearline.domains import load_domain
from nearline.errors import BadInput, CorruptRelease, NotReady
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.sequence import Vocabulary, microseconds
from nearline.settings import settings, size_name
from nearline.windows import Window
from training import gate
from training.baselines import all_baselines, decayed_popularity
from training.bundle import Bundle, read_bundle, with_items
from training.content import content_ids, given_vectors, given_widths
from training.dataset import (
    Interactions,
    cut_time,
    interactions,
    read_catalogue,
    read_events,
)
from training.evaluation import Evaluation, drawn, model_scorer
from training.exam import Exam
from training.learning import Watch, fit, reproducible, warm, watched_loss
from training.model import Model, ModelConfig
from training.neighbours import neighbours
from training.publishing import Clock, learned_last, publish
from training.ranking.night import RankerSchool
from training.recipe import Learning, Recipe, load_recipe
from training.texts import encoded, encoded_by
from training.together import leave_the_rest_to_the_leader
from training.tracking import tracked

log = logging.getLogger(__name__)

HELD_OUT = 0.1
"""Share of the events, the newest ones, that the model is measured on before it learns them."""

WATCHED = 0.05
"""Share of the rest, the newest again, that tells when to stop."""

_MOST_SCORES = 400_000_000
"""Held-out events times items that each method is asked for, at most."""

OURS, CHAMPION = "this release", "champion"


@dataclass(frozen=True)
class Split:
    """Targets in the order of time, and where the held-out slice begins (microseconds)."""

    learned: np.ndarray
    watched: np.ndarray
    held_out: np.ndarray
    cut: int

    @property
    def earlier(self) -> np.ndarray:
        """What is learned before the held-out slice is asked for."""
        return np.concatenate([self.learned, self.watched])


def train_nightly(window: Window) -> str:
    """Learn from all clean events of `window`, judge what came of it, publish it; its version.

    Moves no pointer. Raises MissingPartition when events or catalogue are missing, BadInput when
    there is nothing to learn from.
    """
    config, clock = settings(), Clock()
    lake, domain = Lake.open(), load_domain(config.domain)
    last_hour = learned_last(lake, window)
    catalogue, encoder = encoded(read_catalogue(lake, before=window.end))
    vocabulary = Vocabulary(tuple(catalogue["item_id"].to_pylist()), tuple(domain.telling))
    data = interactions(read_events(lake, window), vocabulary, domain.positive)
    split = split_by_time(data, window)
    items = len(vocabulary.item_ids)
    asked = drawn(split.held_out, items=items, scores=_MOST_SCORES, seed=config.seed)
    clock.lap("read")
    recipe = load_recipe(config.model_size)
    told = {"window": window, "size": config.model_size, "seed": config.seed}
    with reproducible(config.seed), tracked("nightly", str(window), **told, **recipe.flat()) as run:
        model = new_model(recipe, vocabulary, catalogue)
        watch = run.watched(watched_loss(split.watched, recipe.learning))
        stop_at = clock.began + 60 * config.max_train_minutes
        passes = learn(model, data, split, recipe.learning, watch=watch, stop_at=stop_at)
        leave_the_rest_to_the_leader()
        clock.lap("learn")
        school = RankerSchool(data, vocabulary, catalogue)
        ranker = school.taught(model, split.watched, asked)
        clock.lap("learn the ranker")
        warm(model, data, split.watched, split.learned, recipe.learning, seed=config.seed)
        clock.lap("learn the watched")
        exam = Exam(data, asked, split.earlier, model.item_tower.content.words.numpy())
        found, others = measure(model, exam, _champion(vocabulary, catalogue), before=split.cut)
        clock.lap("evaluate")
        ranking, trees = school.judged(ranker, model, asked, found)
        clock.lap("judge the ranker")
        rivals = unseen_by_champion(found, others.pop(CHAMPION, None), data.times[asked])
        checks = compare(found, others, rivals, fresher=is_fresher(window))
        if rivals is not None and len(rivals[1].ranks):
            others[CHAMPION] = rivals[1]
        figures = {
            name: exam.told(each, seed=config.seed)
            for name, each in {OURS: found, **others}.items()
        }
        warm(model, data, split.held_out, split.earlier, recipe.learning, seed=config.seed)
        counts = decayed_popularity(data, items=model.config.items, now=microseconds(window.end))
        size = size_name(config.model_size)
        bundle = Bundle(model, vocabulary, counts, size, recipe.learning, trees, encoder)
        version = publish(
            bundle,
            window,
            kind="nightly",
            last_hour=last_hour,
            ranking=ranking,
            checks=checks,
            metrics=figures.pop(OURS),
            baselines=figures,
            counts=_counts(data, split, passes),
            clock=clock,
        )
        run.released(ReleaseStore.open().load(version).manifest)
        return version


def split_by_time(data: Interactions, window: Window) -> Split:
    """The newest events held out, the newest of the rest watched.

    Raises BadInput when nothing is left to learn from.
    """
    if len(data) == 0:
        raise BadInput(
            f"nothing to learn from: no event in {window} is about an item of the catalogue; "
            "load events and items that belong together"
        )
    cut = cut_time(data.times, HELD_OUT)
    rest = data.times[data.times < cut]
    early = cut_time(rest, WATCHED) if len(rest) else cut
    learned = data.targets(before=early)
    if len(learned) == 0:
        raise BadInput(
            f"nothing to learn from in {window}: among {len(data)} events of "
            f"{len(data.user_ids)} users none follows an earlier event of the same user; "
            "take a longer window"
        )
    return Split(learned, data.targets(since=early, before=cut), data.targets(since=cut), cut)


def new_model(recipe: Recipe, vocabulary: Vocabulary, catalogue: pa.Table) -> Model:
    """A model that has learned nothing yet, for the items of the catalogue."""
    content = content_ids(catalogue, buckets=recipe.model.content_buckets)
    shape = recipe.model.model_dump()
    shape["length"] = min(shape["length"], settings().sequence_length)
    config = ModelConfig(
        items=len(vocabulary.item_ids),
        types=len(vocabulary.event_types),
        content_width=content.shape[1],
        given=given_widths(catalogue),
        **shape,
    )
    given = given_vectors(catalogue, config.given)
    return Model(config, torch.from_numpy(content), torch.from_numpy(given))


def learn(
    model: Model,
    data: Interactions,
    split: Split,
    learning: Learning,
    *,
    watch: Watch | None,
    stop_at: float,
) -> int:
    """Learn what is before the watched events; returns the passes made.

    A night that was killed goes on after its last whole pass.
    """
    items, most = model.config.items, learning.neighbours
    model.item_tower.link(neighbours(data, split.learned, items=items, most=most))
    return fit(
        model,
        data,
        split.learned,
        learning,
        watch=watch,
        seed=settings().seed,
        stop_at=stop_at,
        checkpoint=settings().home / "training.pt",
    )


def measure(
    model: Model, exam: Exam, champion: Model | None, *, before: int
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """The model, and by name the baselines, which know what is `before` a moment, and the champion.

    The champion is the active release's model, if there is one to compare.
    """
    baselines = all_baselines(exam.data, exam.words, before=before, seed=settings().seed)
    others = {name: exam.ask(score) for name, score in baselines.items()}
    if champion is not None:
        others[CHAMPION] = exam.ask(model_scorer(champion, exam.data))
    return exam.ask(model_scorer(model, exam.data)), others


def _champion(vocabulary: Vocabulary, catalogue: pa.Table) -> Model | None:
    """The active release's model for these items; None without one that can be compared.

    A damaged one must not keep a new one from being made.
    """
    store = ReleaseStore.open()
    version = store.active()
    if version is None:
        return None
    try:
        bundle = read_bundle(store.load(version))
        if bundle.vocabulary.event_types != vocabulary.event_types:
            return None
        items = encoded_by(catalogue, bundle.text_encoder)
        return with_items(bundle, vocabulary.item_ids, items)
    except (CorruptRelease, BadInput, NotReady) as error:
        log.warning("not compared with the active release: %s", error)
        return None


def unseen_by_champion(
    found: Evaluation, champion: Evaluation | None, times: np.ndarray
) -> tuple[Evaluation, Evaluation] | None:
    """This model and the active release on the events that neither has learned.

    `times` are those of the events that they were asked for.
    """
    store = ReleaseStore.open()
    version = store.active()
    if champion is None or version is None:
        return None
    learned_until = microseconds(store.load(version).manifest.window_end)
    new = times >= learned_until
    return found.only(new), champion.only(new)


def is_fresher(window: Window) -> bool:
    """Whether `window` ends after the data of the active release; true without one."""
    store = ReleaseStore.open()
    version = store.active()
    return version is None or store.load(version).manifest.window_end < window.end


def compare(
    found: Evaluation,
    baselines: dict[str, Evaluation],
    rivals: tuple[Evaluation, Evaluation] | None,
    *,
    fresher: bool,
) -> list[gate.Check]:
    """The gate's questions that the held-out slice answers."""
    config, version = settings(), ReleaseStore.open().active()
    seed, tolerance = config.seed, config.gate_tolerance
    checks = [
        gate.beats_baselines(found, baselines, fresher=fresher, seed=seed),
        gate.covers(found, floor=config.gate_coverage),
    ]
    if version is not None and rivals is None:
        reason = f"the active release {version} cannot be read, or reads other types or vectors"
        checks.append(gate.Check(True, f"{reason}: it was not compared"))
    elif version is not None and rivals is not None:
        for asked in (gate.keeps_up, gate.keeps_segments):
            checks.append(asked(*rivals, version=version, tolerance=tolerance, seed=seed))
    return checks


def _counts(data: Interactions, split: Split, passes: int) -> dict[str, int]:
    return {
        "events": len(data),
        "users": len(data.user_ids),
        "targets": len(split.learned) + len(split.watched) + len(split.held_out),
        "passes": passes,
    }
