"""The night: the whole model learned again from the lake, measured, judged and published."""

import logging
from collections.abc import Mapping

import pyarrow as pa
import torch

from nearline.domains import load_domain
from nearline.errors import ReleaseError
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.sequence import Vocabulary, microseconds
from nearline.settings import settings, size_name
from nearline.windows import Window
from training import gate
from training.baselines import all_baselines, decayed_popularity
from training.bundle import Bundle
from training.champion import Challenger, Champion, kept_answers
from training.content import content_ids, given_vectors, given_widths
from training.dataset import Interactions, interactions, read_catalogue, read_events
from training.evaluation import Evaluation, drawn, model_scorer
from training.exam import Exam
from training.learning import Fitted, Warmed, reproducible
from training.lesson import Lesson, NightTime, Split, split_by_time
from training.memory import within_memory
from training.model import Model, ModelConfig
from training.publishing import Clock, learned_last, publish
from training.ranking.night import RankerSchool
from training.recipe import Recipe, load_recipe
from training.texts import encoded
from training.together import leave_the_rest_to_the_leader
from training.tracking import tracked
from training.watching import watched_loss

log = logging.getLogger(__name__)

_MOST_SCORES = 400_000_000
"""Held-out events times items that each method is asked for, at most."""


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
    asked = drawn(data, split.held_out, items=items, scores=_MOST_SCORES)
    clock.lap("read")
    recipe = load_recipe(config.model_size)
    told = {"window": window, "size": config.model_size, "seed": config.seed}
    following = tracked("nightly", str(window), **told, **recipe.flat())
    with reproducible(config.seed), within_memory(), following as run:
        model = new_model(recipe, vocabulary, catalogue)
        watch = run.watched(watched_loss(split.watched, recipe.learning))
        night = NightTime(clock.began, clock.began + 60 * config.max_train_minutes)
        lesson = Lesson(model, data, split, recipe.learning, night, config.seed)
        fitted = lesson.most(watch=watch, checkpoint=config.home / "training.pt")
        leave_the_rest_to_the_leader()
        clock.lap("learn")
        school = RankerSchool(data, vocabulary, catalogue)
        ranker = school.taught(model, split.watched, asked)
        clock.lap("learn the ranker")
        watched = lesson.watched()
        clock.lap("learn the watched")
        exam = Exam(data, asked, split.earlier, model.item_tower.content.words.numpy())
        found = exam.ask(model_scorer(model, data))
        baselines = all_baselines(data, exam.words, before=split.cut, seed=config.seed)
        others = {name: exam.ask(score) for name, score in baselines.items()}
        clock.lap("evaluate")
        ranking, trees = school.judged(ranker, model, asked, found)
        clock.lap("judge the ranker")
        challenger = Challenger(found, exam, vocabulary, catalogue, encoder)
        checks = compare(challenger, others, window)
        held_out = lesson.held_out()
        clock.lap("learn the newest")
        bundle = Bundle(
            model,
            vocabulary,
            decayed_popularity(data, items=items, now=microseconds(window.end)),
            size_name(config.model_size),
            recipe.learning,
            trees,
            encoder,
            kept_answers(found, challenger.keys),
        )
        version = publish(
            bundle,
            window,
            kind="nightly",
            last_hour=last_hour,
            ranking=ranking,
            checks=checks,
            metrics=exam.told(found, seed=config.seed),
            baselines={name: exam.told(each, seed=config.seed) for name, each in others.items()},
            counts=_counts(data, split) | _learned(fitted, watched, held_out),
            clock=clock,
        )
        run.released(ReleaseStore.open().load(version).manifest)
        return version


def new_model(recipe: Recipe, vocabulary: Vocabulary, catalogue: pa.Table) -> Model:
    """A model that has learned nothing yet, for the items of the catalogue."""
    content = content_ids(catalogue, buckets=recipe.model.content_buckets)
    shape, kept = recipe.model.model_dump(), settings().sequence_length
    if shape["length"] > kept:
        log.warning(
            "the model's size reads %d events, NEARLINE_SEQUENCE_LENGTH keeps %d: it reads these",
            shape["length"],
            kept,
        )
        shape["length"] = kept
    config = ModelConfig(
        items=len(vocabulary.item_ids),
        types=len(vocabulary.event_types),
        content_width=content.shape[1],
        given=given_widths(catalogue),
        **shape,
    )
    given = given_vectors(catalogue, config.given)
    return Model(config, torch.from_numpy(content), torch.from_numpy(given))


def compare(
    challenger: Challenger, baselines: Mapping[str, Evaluation], window: Window
) -> list[gate.Check]:
    """The gate's questions that the held-out slice answers."""
    config, found, unread = settings(), challenger.found, None
    try:
        champion = Champion.active()
    except ReleaseError as error:  # what is damaged must not keep what replaces it from being made
        champion, unread = None, error
    fresher = champion is None or champion.night_end < window.end
    checks = [
        gate.beats_baselines(found, baselines, fresher=fresher, seed=config.seed),
        gate.covers(found, floor=config.gate_coverage),
    ]
    if champion is not None:
        checks += _beside(champion, challenger, fresher=fresher)
    if unread is not None:
        checks.append(gate.Check(True, f"the active release could not be asked: {unread}"))
    return checks


def _beside(champion: Champion, challenger: Challenger, *, fresher: bool) -> list[gate.Check]:
    config, version = settings(), champion.version
    seed, tolerance = config.seed, config.gate_tolerance
    rivals, trouble = champion.rivals(challenger)
    checks = [
        gate.keeps_up(*rivals, version=version, tolerance=tolerance, fresher=fresher, seed=seed),
        gate.keeps_segments(*rivals, version=version, tolerance=tolerance, seed=seed),
        champion.covered(challenger.found),
    ]
    if trouble is not None:
        checks.append(gate.Check(True, f"the night of {version} could not be asked: {trouble}"))
    return checks


def _counts(data: Interactions, split: Split) -> dict[str, int]:
    return {
        "events": len(data),
        "users": len(data.user_ids),
        "targets": len(split.learned) + len(split.watched) + len(split.held_out),
    }


def _learned(fitted: Fitted, *last: Warmed) -> dict[str, int]:
    """The passes of a night, and whether the time cut one of its parts; the log tells that too."""
    cut = fitted.cut or any(part.cut for part in last)
    if cut:
        log.warning(
            "NEARLINE_MAX_TRAIN_MINUTES (%g) cut the night short, after %.1f passes",
            settings().max_train_minutes,
            fitted.made,
        )
    return {"passes": fitted.passes, "cut_short": int(cut)}
