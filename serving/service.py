"""Everything that answering takes, put together from the settings, started and stopped."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event as Signal
from threading import Thread
from typing import Any

from nearline.domains import load_domain
from nearline.intake import Journal, Receipt
from nearline.lake import Lake
from nearline.settings import settings
from serving.active import ActiveRelease
from serving.catalogue import CatalogueFile
from serving.features import FeatureReader
from serving.metrics import Metrics
from serving.recommender import Recommender
from serving.users import LiveEvents, Users

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0


@dataclass(eq=False)
class Service:
    """What the API answers with. `start` before the first request, `close` after the last."""

    active: ActiveRelease
    reader: FeatureReader
    live: LiveEvents
    journal: Journal
    recommender: Recommender
    metrics: Metrics
    live_hours: int
    _stopped: Signal = field(default_factory=Signal, init=False)
    _watch: Thread | None = field(default=None, init=False)

    @classmethod
    def open(
        cls, *, journal: Journal | None = None, reader: FeatureReader | None = None
    ) -> "Service":
        """A service of the settings; `journal` and `reader` stand in for theirs."""
        config, metrics, lake = settings(), Metrics(), Lake.open()
        domain, reader = load_domain(config.domain), reader or FeatureReader.open()
        live = LiveEvents(domain, length=config.sequence_length, hours=config.live_hours)
        users = Users(reader, live, length=config.sequence_length)
        return cls(
            active=ActiveRelease.open(CatalogueFile(lake), metrics),
            reader=reader,
            live=live,
            journal=journal or Journal.open(),
            recommender=Recommender(
                users, reader, domain, metrics, category_cap=config.category_cap
            ),
            metrics=metrics,
            live_hours=config.live_hours,
        )

    def start(self, now: datetime) -> None:
        """Load the active release, bring the live events back, and follow what changes."""
        self.reader.warm()
        # The journal does not tell when it took each event in. Now is the safe answer: until the
        # next push, the users of these events are encoded anew.
        self.live.add(self.journal.recent(now - timedelta(hours=self.live_hours)), accepted=now)
        self._refresh()
        self._watch = Thread(target=self._follow, name="release-watch", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop following and reading."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.join()
        self.reader.close()
        self.journal.close()

    def take(self, rows: Sequence[Any], *, clock: Callable[[], datetime]) -> list[Receipt]:
        """Events as JSON gave them: durable, and part of the live state, when this returns.

        Raises NotReady when the disk does not keep them.
        """
        receipts = self.journal.append(rows)
        events = [receipt.event for receipt in receipts if receipt.event is not None]
        # The clock is read after the journal stamped the events: a vector of an earlier hour
        # must not count as knowing them.
        self.live.add(events, accepted=clock())
        return receipts

    def _follow(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            self._refresh()

    def _refresh(self) -> None:
        try:
            self.active.refresh()
        except Exception:  # the store may be out of reach for a while; what is loaded still answers
            log.exception("the release store could not be looked at")
