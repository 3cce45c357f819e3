"""What files that a person writes told last without a fault: wrong ones change nothing."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from nearline.by_hand import text_of
from nearline.errors import ConfigError
from nearline.locks import alone_in
from nearline.replacing import replace_file
from nearline.settings import settings
from serving.metrics import Metrics
from serving.watched import Version, version_of

log = logging.getLogger(__name__)
T = TypeVar("T")


class Watched(Generic[T]):
    """What a file that a person writes tells. A wrong one is logged, counted and changes nothing.

    Its last good text is kept in HOME/last_good: a worker that starts while the file is wrong
    takes that, and so answers as the others do.
    """

    def __init__(
        self, what: str, path: Path, parse: Callable[[str, Path], T], metrics: Metrics
    ) -> None:
        """As an empty file until the first `refresh`. `what` it tells of, as logs and figures say.

        `parse` reads a text that the file, or the copy of it, at a path has; it raises ConfigError.
        """
        self._what, self._path, self._parse, self._metrics = what, path, parse, metrics
        self._good = settings().home / "last_good" / f"{what}.yaml"
        self._seen: Version | tuple[()] = ()
        self.told = parse("", path)

    def refresh(self) -> None:
        """Take over the file if it changed. One thread calls this."""
        before = self._seen
        try:
            version = version_of(self._path)
            if version == before:
                return
            self._seen = version
            text = text_of(self._path)
            self.told = self._parse(text, self._path)
        except (ConfigError, OSError) as error:
            log.error("the %s stay as they are: %s", self._what, error)
            self._metrics.refresh_failures.labels(self._what).inc()
            if before == ():
                self._take_last_good()
        else:
            log.info("%s: %s", self._what, self._path if text else "none")
            self._keep(text, version)

    def _take_last_good(self) -> None:
        try:
            self.told = self._parse(text_of(self._good), self._good)
        except ConfigError as error:
            log.error("there are no %s until the file is whole: %s", self._what, error)
        else:
            log.warning("the %s are those that were good last: %s", self._what, self._good)

    def _keep(self, text: str, version: Version) -> None:
        """Keep a good text, unless the file was changed since: a slow worker keeps nothing old."""
        try:
            if text == text_of(self._good):
                return
            with alone_in(self._good.parent):
                if version == version_of(self._path):
                    replace_file(self._good, text)
        except (ConfigError, OSError) as error:
            log.error("a worker that starts may not know the %s: %s", self._what, error)
