"""The ranker's part of a night: taught on events that the encoder has not learned yet, then judged
on later ones against the encoder's own order."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nearline.errors import MissingPartition
from nearline.lake import Lake
from nearline.ranking import ITEM_FEATURES, USER_FEATURES
from nearline.releases import Ranking
from nearline.sequence import Vocabulary, at_microseconds
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor
from training.baselines import item_neighbours
from training.dataset import Interactions
from training.evaluation import Evaluation, interval, sample
from training.model import Model
from training.ranking.candidates import Retrieval
from training.ranking.examples import Examples, examples
from training.ranking.history import TRENDING
from training.ranking.learning import fused, learn, ranks, scored

if TYPE_CHECKING:
    from lightgbm import Booster

log = logging.getLogger(__name__)

TAUGHT = 2000
JUDGED = 2000
"""Requests, at most, drawn from all that there are."""

ENOUGH = 200
"""With fewer events no ranker is learned."""

READ = tuple(
    dict.fromkeys(name.split(":")[0] for name in (*USER_FEATURES, *ITEM_FEATURES, *TRENDING))
)
"""The feature views whose history a ranker learns from."""


@dataclass(frozen=True)
class RankerSchool:
    """What requests of the past are made from, and what a ranker learns from them.

    Whatever fails here is told in place of a ranker: it must not cost the night its model.
    """

    data: Interactions
    vocabulary: Vocabulary
    catalogue: pa.Table

    def taught(self, model: Model, watched: np.ndarray, held_out: np.ndarray) -> "Booster | str":
        """A ranker of `watched` that `held_out` may judge, or why there is none."""
        why_not = untaught(self.data, watched, held_out)
        if why_not is not None:
            return why_not
        try:
            return self.teach(model, watched)
        except Exception as error:  # Feast, its stores and LightGBM have errors of their own
            return _failed(error)

    def judged(
        self, ranker: "Booster | str", model: Model, held_out: np.ndarray, found: Evaluation
    ) -> tuple[Ranking, str | None]:
        """The verdict on what `taught` gave, and the ranker as text, if there is one."""
        if not isinstance(ranker, str):
            try:
                return self.judge(ranker, model, held_out, found), ranker.model_to_string()
            except Exception as error:  # as above
                ranker = _failed(error)
        return Ranking(reason=f"no ranker: {ranker}"), None

    def teach(self, model: Model, targets: np.ndarray) -> "Booster":
        """A ranker of the requests before `targets`, none of which the model has learned."""
        return learn(self._requests(model, self._drawn(targets, TAUGHT)), seed=settings().seed)

    def judge(
        self, ranker: "Booster", model: Model, targets: np.ndarray, found: Evaluation
    ) -> Ranking:
        """How a ranker does on `targets`, later than all that it and the model have learned.

        `found` is how the model did on them.
        """
        drawn = self._drawn(np.arange(len(targets)), JUDGED)
        asked = self._requests(model, targets[drawn])
        own = found.only(drawn)
        missed = len(self.vocabulary.item_ids)
        ranked, plain = (
            replace(own, ranks=ranks(scores, asked, missed=missed))
            for scores in (scored(ranker, asked), fused(asked))
        )
        return compared(ranked, own, plain, seed=settings().seed)

    def _drawn(self, targets: np.ndarray, most: int) -> np.ndarray:
        return sample(targets, most, seed=settings().seed)

    def _requests(self, model: Model, targets: np.ndarray) -> Examples:
        before = int(self.data.times[targets].min())
        neighbours = item_neighbours(self.data, items=len(self.vocabulary.item_ids), before=before)
        matrix = model.eval().item_matrix().detach().numpy()
        retrieval = Retrieval(self.data, model, matrix, neighbours)
        return examples(retrieval, targets, self.vocabulary, self.catalogue)


def _failed(error: Exception) -> str:
    log.error("no ranker was learned", exc_info=error)
    return f"it could not be learned ({type(error).__name__}: {error})"


def compared(ranked: Evaluation, own: Evaluation, plain: Evaluation, *, seed: int) -> Ranking:
    """The verdict on an order of candidates, beside the encoder's own of the same requests.

    It wins where it is better beyond noise, and no worse than what is served without a ranker:
    the `plain`, fused order.
    """
    low, high = interval(ranked.ndcg - own.ndcg, own.users, seed=seed)
    ndcg, encoder_ndcg, fused_ndcg = (float(each.ndcg.mean()) for each in (ranked, own, plain))
    wins = low > 0 and ndcg >= fused_ndcg
    return Ranking(
        wins=wins,
        reason=(
            f"{'better than' if low > 0 else 'not better beyond noise than'} the encoder's own "
            f"order: NDCG@10 {ndcg:.4f} against {encoder_ndcg:.4f} on {len(own.ranks)} events "
            f"(difference {low:+.4f} to {high:+.4f}); "
            f"{'worse than' if ndcg < fused_ndcg else 'at least'} the fused order, {fused_ndcg:.4f}"
        ),
        ndcg=round(ndcg, 6),
        encoder_ndcg=round(encoder_ndcg, 6),
        fused_ndcg=round(fused_ndcg, 6),
        low=round(low, 6),
        high=round(high, 6),
        events=len(own.ranks),
    )


def untaught(data: Interactions, watched: np.ndarray, held_out: np.ndarray) -> str | None:
    """Why no ranker can be learned from the one and judged by the other; None where it can."""
    if settings().ranker == "off":
        return "NEARLINE_RANKER is off"
    if min(len(watched), len(held_out)) < ENOUGH:
        return f"fewer than {ENOUGH} events to learn from or to be judged by"
    if not settings().feast_registry.is_file():
        return "no feature is registered"
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError) as error:  # its library asks for the system's libgomp
        return f"LightGBM cannot be loaded ({error}): install libgomp (Debian: libgomp1)"
    first, last = int(data.times[watched].min()), int(data.times[held_out].max())
    hours = Window(hour_floor(at_microseconds(first)) - HOUR, hour_floor(at_microseconds(last)))
    try:
        for view in READ:
            Lake.open().require_complete(f"features/{view}", hours)
    except MissingPartition as error:
        return str(error)
    return None
