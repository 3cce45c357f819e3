"""Shadow traffic: what a challenger would have answered, asked beside the requests, never shown."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from serving.answers import Answer
from serving.logs import trace
from serving.metrics import Metrics

log = logging.getLogger(__name__)

MOST_WAITING = 100
"""Lists that wait to be asked for; beyond these they are dropped: requests never wait for them."""


class Shadow:
    """Asks challengers in a thread of its own, and measures how they differ from what was shown."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._free = Semaphore(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def ask(self, experiment: str, challenger: Callable[[], Answer], shown: Answer) -> None:
        """Have a challenger asked for a list that was shown; returns at once."""
        if not self._free.acquire(blocking=False):
            self._count(experiment, "dropped")
            return
        self._thread.submit(self._measure, experiment, challenger, shown)

    def close(self) -> None:
        """Ask no more; what waits is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _measure(self, experiment: str, challenger: Callable[[], Answer], shown: Answer) -> None:
        began = time.perf_counter()
        try:
            answer = challenger()
        except Exception as error:
            log.error("the challenger of experiment %s failed:\n%s", experiment, trace(error))
            self._count(experiment, "failed")
        else:
            seconds = time.perf_counter() - began
            self._metrics.shadow_seconds.labels(experiment).observe(seconds)
            self._metrics.shadow_overlap.labels(experiment).observe(overlap(shown, answer))
            self._count(experiment, "answered")
        finally:
            self._free.release()

    def _count(self, experiment: str, outcome: str) -> None:
        self._metrics.shadow_lists.labels(experiment, outcome).inc()


def overlap(shown: Answer, other: Answer) -> float:
    """The share of the items shown that another list has too, 0 to 1; 1 for two empty lists."""
    first, second = ({item.item_id for item in answer.items} for answer in (shown, other))
    return len(first & second) / len(first) if first else float(not second)
