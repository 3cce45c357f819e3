"""What failed a moment ago is not tried again at once."""

import time


class Backoff:
    """Pauses after failures, by what failed: `first_s`, then twice as long, up to `most_s`.

    For one thread at a time.
    """

    def __init__(self, *, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._pauses: dict[str, tuple[float, float]] = {}  # what → seconds, and until when

    def waits(self, what: str) -> bool:
        """Whether the pause of `what` is not over."""
        _, until = self._pauses.get(what, (0.0, 0.0))
        return time.monotonic() < until

    def failed(self, what: str) -> float:
        """`what` has failed now; the seconds until it is to be tried again."""
        before, _ = self._pauses.get(what, (0.0, 0.0))
        pause_s = min(2 * before or self._first_s, self._most_s)
        self._pauses[what] = pause_s, time.monotonic() + pause_s
        return pause_s

    def worked(self, what: str) -> None:
        """`what` has worked: the next failure is the first again."""
        self._pauses.pop(what, None)
