"""What serving counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from nearline.releases import ReleaseManifest
from serving.answers import Answer

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


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
        self.refresh_failures = Counter(
            "nearline_refresh_failures",
            "Releases or catalogues that could not be taken over.",
            ["what"],
            registry=registry,
        )
        self.release = Info("nearline_release", "The release in use.", registry=registry)
        self.release_window_end = Gauge(
            "nearline_release_window_end_seconds",
            "End of the data that the release in use has learned, Unix time.",
            registry=registry,
        )

    def release_loaded(self, manifest: ReleaseManifest, encoder: str) -> None:
        """The release that answers from now on."""
        self.release.info({"version": manifest.version, "kind": manifest.kind, "encoder": encoder})
        self.release_window_end.set(manifest.window_end.timestamp())

    def answered(self, endpoint: str, answer: Answer) -> None:
        """A list was answered at an endpoint."""
        self.answers.labels(endpoint, answer.source).inc()
        if answer.reason is not None:
            self.fallbacks.labels(answer.reason.name.lower()).inc()
        if answer.filled is not None:
            self.fallbacks.labels(answer.filled.reason.name.lower()).inc()

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self._registry)
