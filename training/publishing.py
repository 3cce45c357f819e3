"""A trained model becomes a release: written, judged by the gate, published with its lineage."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nearline
from nearline import __version__
from nearline import bundle as names
from nearline.lake import EVENTS, Lake
from nearline.releases import Drift, Kind, Ranking, ReleaseManifest, ReleaseStore
from nearline.settings import settings
from nearline.windows import HOUR, Window
from training import gate
from training.bundle import Bundle, write_bundle
from training.indexing import write_index

FEATURE_SERVICE = "serving_v1"
"""The Feast feature service that gives serving what the model reads."""


_PACKAGES = (Path(__file__).parent, Path(nearline.__file__).parent)
"""What makes a model: this room, and the words, sequences and lenders of the ground floor."""


class Clock:
    """Seconds of named steps; `began` is time.monotonic at the start."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = self._last = time.monotonic()

    def lap(self, step: str) -> None:
        """End a step."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now


def publish(
    bundle: Bundle,
    window: Window,
    *,
    kind: Kind,
    parent: str | None = None,
    base: str | None = None,
    last_hour: str,
    drift: Drift | None = None,
    ranking: Ranking | None = None,
    checks: Sequence[gate.Check],
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, int],
    clock: Clock,
) -> str:
    """Stage the release's files, ask the gate, publish; returns the version.

    `last_hour` is what `learned_last` told before the events were read.
    A release that the gate refuses is published too, marked so, for people to look at.
    """
    store, config = ReleaseStore.open(), settings()
    with store.stage() as folder:
        write_bundle(folder, bundle)
        index = write_index(folder, bundle.model)
        encoder, budget_ms = names.ENCODERS[config.encoder], config.gate_latency_ms
        answered = gate.answers(folder, bundle.model)
        in_time = gate.quick(folder, bundle.model, file=encoder, budget_ms=budget_ms)
        verdict = gate.judge([*checks, *answered, in_time])
        clock.lap("export and judge")
        manifest = ReleaseManifest(
            kind=kind,
            parent=parent,
            base=base,
            window_start=window.start,
            window_end=window.end,
            last_hour=last_hour,
            drift=drift,
            ranking=ranking,
            promoted=verdict.promoted,
            reasons=verdict.reasons,
            metrics=dict(metrics),
            baselines={name: dict(found) for name, found in baselines.items()},
            lineage={
                "code": code_version(),
                "feature_service": FEATURE_SERVICE,
                "size": bundle.size,
                "seed": config.seed,
                "items": len(bundle.vocabulary.item_ids),
                **({"index": index} if index else {}),
                "window": [window.start.isoformat(), window.end.isoformat()],
                **counts,
                "seconds": clock.seconds,
            },
        )
        return store.publish(folder, manifest)


def learned_last(lake: Lake, window: Window) -> str:
    """The checksum of a window's last hour: tells later whether that hour has changed since.

    To be asked for before the events are read: what changes meanwhile is learned again, not missed.
    """
    return lake.checksum(EVENTS, window.end - HOUR)


def code_version() -> str:
    """Nearline's version and a hash of the code that makes a model, and of the sizes."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in package.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.name.encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"
