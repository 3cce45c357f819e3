"""What serving counts, for Prometheus.

Several workers count into files that they share (`share`), so that whichever is asked for figures
tells those of all.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from nearline.releases import ReleaseManifest
from serving.answers import Answer

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


_SHARED = ValueClass is not MutexValue
"""Whether this process was started to count into shared files."""


@contextmanager
def share() -> Iterator[None]:
    """While this lasts, processes that are started count together. Not for this process itself."""
    with TemporaryDirectory(prefix="nearline-figures-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


class Metrics:
    """The figures of one app, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "nearline_requests", "Requests answered.", ["endpoint", "status"], registry=registry
        )
        self.latency = Histogram(
            "nearline_request_seconds",
            "Time from the request's head to the end of the answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.answers = Counter(
            "nearline_answers",
            "Lists answered, by where they came from.",
            ["endpoint", "source"],
            registry=registry,
        )
        self.fallbacks = Counter(
            "nearline_fallbacks",
            "Lists answered with less than was asked for, by reason.",
            ["reason"],
            registry=registry,
        )
        self.source_failures = Counter(
            "nearline_source_failures",
            "Sources of candidates that had no part in a list, by what failed.",
            ["source", "failure"],
            registry=registry,
        )
        self.rankings = Counter(
            "nearline_rankings",
            "Lists of a release with a ranker that is on: ranked, or why not.",
            ["outcome"],
            registry=registry,
        )
        self.user_vectors = Counter(
            "nearline_user_vectors",
            "User vectors: encoded now, remembered, stored, or stored and of no use (and why).",
            ["outcome"],
            registry=registry,
        )
        self.events = Counter(
            "nearline_events",
            "Events posted, by what became of them.",
            ["status"],
            registry=registry,
        )
        self.items = Counter(
            "nearline_items", "Items put, by what became of them.", ["status"], registry=registry
        )
        self.impressions = Counter(
            "nearline_impressions",
            "Lists answered, by whether they are in the log of what was shown.",
            ["status"],
            registry=registry,
        )
        self.arm_lists = Counter(
            "nearline_arm_lists",
            "Lists made by an arm of an experiment: answered, fallback, or failed.",
            ["experiment", "arm", "outcome"],
            registry=registry,
        )
        self.arm_seconds = Histogram(
            "nearline_arm_seconds",
            "Time that an arm of an experiment takes to make a list.",
            ["experiment", "arm"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.arms_closed = Counter(
            "nearline_arms_closed",
            "Arms of experiments that were closed, by the guardrail that they broke.",
            ["experiment", "arm", "guardrail"],
            registry=registry,
        )
        self.shadow_lists = Counter(
            "nearline_shadow_lists",
            "Lists that the shadow of an experiment was asked for: answered, failed, or dropped.",
            ["experiment", "outcome"],
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "nearline_shadow_overlap",
            "Share of the items shown that the shadow's list has too.",
            ["experiment"],
            buckets=[tenths / 10 for tenths in range(11)],
            registry=registry,
        )
        self.shadow_seconds = Histogram(
            "nearline_shadow_seconds",
            "Time that the shadow of an experiment takes to make a list.",
            ["experiment"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refresh_failures = Counter(
            "nearline_refresh_failures",
            "Releases, catalogues, words or journals that could not be taken over.",
            ["what"],
            registry=registry,
        )
        self.release = Gauge(
            "nearline_release_info",
            "1 for the release in use, 0 for one that was.",
            ["version", "kind", "encoder"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._release: Gauge | None = None
        self.release_window_end = Gauge(
            "nearline_release_window_end_seconds",
            "End of the data that the release in use has learned, Unix time.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def release_loaded(self, manifest: ReleaseManifest, encoder: str) -> None:
        """The release that answers from now on."""
        if self._release is not None:
            self._release.set(0)
        self._release = self.release.labels(manifest.version, manifest.kind, encoder)
        self._release.set(1)
        self.release_window_end.set(manifest.window_end.timestamp())

    def answered(self, endpoint: str, answer: Answer) -> None:
        """A list was answered at an endpoint."""
        self.answers.labels(endpoint, answer.source).inc()
        if answer.reason is not None:
            self.fallbacks.labels(answer.reason.code).inc()
        if answer.filled is not None:
            self.fallbacks.labels(answer.filled.reason.code).inc()

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        registry = self._registry
        if _SHARED:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
