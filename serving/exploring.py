"""Exploration: some places go to items that would not be shown, so that these can be learned of.

Epsilon-greedy by place: each place but the first shows, with the chance epsilon, one of the items
beyond the list instead of its own, all of them equally likely. The chance that an item stands where
it stands (its propensity) is known exactly and logged with the list, so that what followed can be
weighed by its inverse: Swaminathan and Joachims, "Counterfactual risk minimization: learning from
logged bandit feedback", ICML 2015.
"""

import random
from collections.abc import Sequence

from serving.arrange import Candidate


def explored(
    chosen: Sequence[Candidate], beyond: Sequence[Candidate], *, epsilon: float, list_id: str
) -> list[Candidate]:
    """`chosen` with some places given to items of `beyond`, and the propensity of each.

    The lot is drawn from `list_id` alone. Each place is first dealt an item of `beyond`, no item
    twice, and none where there are fewer items than places; then a coin says whether it is shown.
    So an item of `beyond` is dealt to a place with the chance 1 / max(items, places).
    """
    places = len(chosen) - 1
    if not epsilon or not beyond or places < 1:
        return list(chosen)
    most = max(len(beyond), places)
    lot = random.Random(list_id)
    own, other = 1 - epsilon * len(beyond) / most, epsilon / most
    drawn = [chosen[0]]
    for candidate, dealt in zip(chosen[1:], lot.sample(range(most), places), strict=True):
        if lot.random() < epsilon and dealt < len(beyond):
            drawn.append(beyond[dealt]._replace(propensity=other))
        else:
            drawn.append(candidate._replace(propensity=own))
    return drawn
