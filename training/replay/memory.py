"""What a model has forgotten: how well it still foresees what came before the replay."""

from training.dataset import cut_time
from training.evaluation import Evaluation, evaluate, model_scorer
from training.lesson import HELD_OUT
from training.replay.models import ModelLine
from training.replay.timeline import Timeline


def remembered(timeline: Timeline, line: ModelLine) -> Evaluation:
    """The newest tenth of the events before the replay, among the items that were known then.

    A fine-tune that repeats older events may have repeated some of these.
    """
    items = timeline.items_before(timeline.start)
    data = timeline.seen(before=timeline.start, items=items).data
    targets = data.targets(since=cut_time(data.times, HELD_OUT))
    score = model_scorer(line.bundle.model, data)
    return evaluate(lambda part: score(part)[:, :items], data, targets, items=items)
