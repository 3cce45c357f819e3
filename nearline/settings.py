"""Every setting of Nearline, in one place: `NEARLINE_<NAME>` in the environment or in `.env`.

`.env` lies beside the code, and so does `var`, unless set otherwise: commands find the same data
from any folder.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nearline import reach
from nearline.errors import ConfigError
from nearline.faults import words

_ROOT = Path(__file__).resolve().parents[1]

LARGEST_SEED = 2**32 - 1

SIZES = ("small", "base", "large")
"""The model's sizes that come along."""


def own_size(size: str) -> Path | None:
    """The YAML file that a size of one's own names; None where it names none that is there."""
    path = Path(size).expanduser()
    return path.resolve() if path.suffix in (".yaml", ".yml") and path.is_file() else None


def size_name(size: str) -> str:
    """What a release calls a size: a file's name alone, as its folder is one machine's."""
    own = own_size(size)
    return size if own is None else own.name


class Settings(BaseSettings):
    """All settings with their defaults: embedded, one machine, nothing to start beforehand."""

    model_config = SettingsConfigDict(
        env_prefix="NEARLINE_", env_file=_ROOT / ".env", extra="ignore"
    )

    home: Path = Field(
        _ROOT / "var", description="folder that holds all data; without: var beside the code"
    )
    lake: str = Field("", description="lake, any fsspec path; empty: HOME/lake")
    releases: str = Field("", description="release store; empty: HOME/releases")
    intake: Path = Field(Path(), description="journals of accepted events; empty: HOME/intake")
    pseudonymise: bool = Field(
        False, description="store keyed hashes for user ids, from the door on; needs ID_SECRET"
    )
    id_secret: str = Field(
        "", description="secret of the hashes of user ids; empty: one is made in HOME/id_secret"
    )
    domain: str = Field(
        "entertainment", description="commerce, social, entertainment, or the path of a domain file"
    )

    late_hours: int = Field(48, ge=0, description="an event may arrive this many hours late")
    bot_events_per_minute: int = Field(
        600, ge=1, description="a user with more events in a minute is taken for a bot"
    )
    sequence_length: int = Field(100, ge=2, description="newest events kept for each user")

    spark_master: str = Field("local[*]", description="any Spark master URL")
    spark_memory: str = Field("2g", description="memory of the Spark driver")
    spark_executor_memory: str = Field("1g", description="memory of each executor of a cluster")
    dbt_target: Literal["duckdb", "spark"] = Field(
        "duckdb", description="where dbt builds the marts: DuckDB, or Spark on SPARK_MASTER"
    )
    duckdb_path: Path = Field(
        Path(), description="tables of the dbt target duckdb; empty: HOME/marts.duckdb"
    )

    offline_store: Literal["duckdb", "spark"] = Field(
        "duckdb", description="who reads the history of features: DuckDB, or Spark on SPARK_MASTER"
    )
    online_store: Literal["sqlite", "redis"] = Field("sqlite", description="Feast online store")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="used when ONLINE_STORE=redis")
    redis_timeout_s: float = Field(
        2, gt=0, description="a connection to Redis that is silent for so long is given up"
    )
    feast_project: str = Field(
        "nearline",
        pattern="^[a-z][a-z0-9_]{0,39}$",
        description="name of this installation among those that share a Redis; kept once hours are "
        "online",
    )
    feast_registry: Path = Field(Path(), description="empty: HOME/feast/registry.db")
    feast_online: Path = Field(Path(), description="empty: HOME/feast/online.db")

    model_size: str = Field(
        "small", description="size of the model: small, base, large, or a YAML file of one's own"
    )
    max_train_minutes: float = Field(
        30,
        gt=0,
        le=7 * 24 * 60,
        description="minutes that a night learns at most; measuring and releasing come on top",
    )
    seed: int = Field(17, ge=0, le=LARGEST_SEED, description="seed of every random choice")
    train_threads: int = Field(
        0, ge=0, description="threads of a training; 0: one for every two cores"
    )
    train_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where a training runs; auto: on a GPU where torch finds one"
    )
    text_encoder: str = Field(
        "auto",
        description="what makes vectors of items' texts: auto, the packaged encoder where it is "
        "installed; none; or a folder of sentence-transformers",
    )
    track: Literal["none", "long", "all"] = Field(
        "long", description="trainings that MLflow follows; long: nights and `evaluate`, no hours"
    )
    mlflow_uri: str = Field("", description="empty: the file HOME/mlflow.db")
    replay_days: int = Field(
        30, ge=1, description="a fine-tune reads histories, and repeats events, of these days"
    )
    replay_events: int = Field(
        2_000_000,
        ge=1,
        description="of so many past events a fine-tune reads no more days: its cost is bounded",
    )
    gate_tolerance: float = Field(
        0.1, ge=0, lt=1, description="share of NDCG@10 that a release may lose"
    )
    gate_coverage: float = Field(
        0.02, ge=0, lt=1, description="least share of items that a release's lists must show"
    )
    gate_latency_ms: float = Field(
        50.0, gt=0, description="longest that a release may take to encode a user's events"
    )
    drift_bound: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share of the night's top 10 that hours may change; more asks for a night",
    )
    drift_hours: int = Field(
        36, ge=1, description="so many hours after the data of a night another is asked for"
    )
    history_days: int = Field(400, ge=1, description="a nightly training learns from this many")
    exact_items: int = Field(
        50_000,
        ge=1,
        description="releases of more items get an approximate index; of so many, all are scored",
    )
    keep_releases: int = Field(48, ge=1, description="newest releases that housekeeping keeps")
    keep_raw_days: int = Field(
        0, ge=0, description="days of arrivals kept; 0: for ever, as all else can be made of them"
    )
    keep_events_days: int = Field(430, ge=0, description="days of clean events kept; 0: for ever")
    keep_quarantine_days: int = Field(
        90, ge=0, description="days of refused rows kept; 0: for ever"
    )
    keep_impressions_days: int = Field(
        90, ge=0, description="days of the log of what was shown kept; 0: for ever"
    )
    keep_partials_days: int = Field(400, ge=0, description="days of partials kept; 0: for ever")
    keep_features_days: int = Field(180, ge=0, description="days of features kept; 0: for ever")
    keep_marts_days: int = Field(400, ge=0, description="days of other marts kept; 0: for ever")
    keep_quality_days: int = Field(
        90, ge=0, description="days of the summaries that drift is told from kept; 0: for ever"
    )
    catchup_hours: int = Field(
        24, ge=0, description="a run also does the hours before it that are missing, up to so many"
    )
    backfill_rows: int = Field(
        2_000_000, ge=1, description="raw rows that a long window takes at once, in whole days"
    )
    active_days: int = Field(7, ge=1, description="users seen in the last days get pushed vectors")

    serve_host: str = Field("127.0.0.1", description="address the API listens on")
    serve_port: int = Field(8900, ge=1, le=65535, description="port the API listens on")
    serve_workers: int = Field(1, ge=1, description="processes that answer, sharing the port")
    keys: Path = Field(Path(), description="hashes of the API's keys; empty: HOME/keys.json")
    key_rate: float = Field(
        0, ge=0, description="requests a second of a key that has no rate of its own; 0: any"
    )
    tls_cert: str = Field("", description="PEM file of a certificate: the API speaks HTTPS")
    tls_key: str = Field("", description="PEM file of the certificate's private key")
    oidc_issuer: str = Field("", description="issuer whose bearer tokens are let in; empty: none")
    oidc_audience: str = Field("", description="whom the issuer's tokens must be for")
    oidc_jwks: str = Field("", description="the issuer's public keys (JWKS): a file, or https://…")
    oidc_claim: str = Field("roles", description="claim of a token that holds `nearline:ROLE`")
    api_key: str = Field("", description="key or token that clients send to the API")
    feature_deadline_ms: int = Field(50, ge=1, description="longest wait for the online store")
    experiments: Path = Field(
        Path(), description="YAML file of running experiments; empty: HOME/experiments.yaml"
    )
    promotions: Path = Field(
        Path(), description="YAML file of promoted items; empty: HOME/promotions.yaml"
    )
    promoted_places: int = Field(
        2, ge=0, description="most promoted items of a list, and never more than half of it"
    )
    kept_seconds: float = Field(
        60, ge=0, description="so long a list answers again while nothing has happened; 0: never"
    )
    ranker: Literal["auto", "on", "off"] = Field(
        "auto",
        description="candidates are ordered by a release's ranker: auto, where it beat the "
        "encoder's order; on, always; off, never, and a night trains none",
    )
    encoder: Literal["full", "compressed"] = Field(
        "full", description="encoder of a release that serving loads"
    )
    category_cap: float = Field(
        0.6, gt=0, le=1, description="largest share of one category in a list, where there is more"
    )
    freshness: float = Field(
        0,
        ge=0,
        le=10,
        description="boost of an item that was just created, in the order of a list: 1 doubles "
        "the worth of its place; 0: none",
    )
    freshness_hours: float = Field(
        72, gt=0, description="the boost of an item halves every so many hours of its age"
    )
    explore: float = Field(
        0,
        ge=0,
        le=0.5,
        description="chance of each place but the first to show an item from further down, or a "
        "new one; lists drawn by lot are not kept. 0: none",
    )
    live_hours: int = Field(
        48,
        ge=1,
        description="accepted events of the last hours are part of the live state, as long as "
        "they are not online",
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="longest body the API reads")
    client_timeout_s: float = Field(
        10,
        gt=0,
        description="longest that a request's head or body may take to arrive, or its answer to go",
    )

    airflow_port: int = Field(8080, ge=1, le=65535, description="port of the Airflow UI")
    schedule_start: str = Field(
        "2026-01-01T00:00:00Z", description="no scheduled run covers hours before this"
    )

    @field_validator("model_size")
    @classmethod
    def _know_the_size(cls, size: str) -> str:
        own = own_size(size)
        if size not in SIZES and own is None:
            raise ValueError(f"must be {', '.join(SIZES)}, or a YAML file that is there")
        return size if own is None else str(own)

    @model_validator(mode="after")
    def _keep_the_secret_apart(self) -> "Settings":
        if self.pseudonymise and not self.id_secret:
            raise ValueError(
                "NEARLINE_PSEUDONYMISE needs NEARLINE_ID_SECRET: a secret that lay beside the data "
                "would tell whose it is"
            )
        return self

    @model_validator(mode="after")
    def _keep_what_steps_read(self) -> "Settings":
        late_days = -(-self.late_hours // 24) + 1
        needed = {
            "raw": (2 * late_days, "late events"),
            "events": (self.history_days + late_days, "trainings (NEARLINE_HISTORY_DAYS)"),
            "quarantine": (2 * late_days, "late events"),
            "impressions": (2 * late_days, "the journals that they are made of"),
            "partials": (reach.SEQUENCE_DAYS + late_days, "user sequences"),
            "features": (reach.FEATURE_DAYS + late_days, "the ttl of feature views"),
            "quality": (10 + late_days, "the drift of features"),
        }
        for layer, (days, why) in needed.items():
            kept = self.keep_days(layer)
            if kept is not None and kept < days:
                raise ValueError(
                    f"NEARLINE_KEEP_{layer.upper()}_DAYS={kept} is too little: {why} look back "
                    f"{days} days (0 keeps all)"
                )
        return self

    @model_validator(mode="after")
    def _know_what_tokens_are_for(self) -> "Settings":
        if self.oidc_issuer and not (self.oidc_audience and self.oidc_jwks):
            raise ValueError(
                f"NEARLINE_OIDC_ISSUER={self.oidc_issuer!r} needs NEARLINE_OIDC_AUDIENCE and "
                "NEARLINE_OIDC_JWKS: without them any token would do"
            )
        return self

    def keep_days(self, layer: str) -> int | None:
        """How many days of a layer of the lake are kept; None for those that are kept for ever."""
        return getattr(self, f"keep_{layer}_days", 0) or None

    @model_validator(mode="after")
    def _derive_paths(self) -> "Settings":
        self.home = self.home.expanduser().resolve()
        self.lake = self.lake or str(self.home / "lake")
        self.releases = self.releases or str(self.home / "releases")
        self.mlflow_uri = self.mlflow_uri or f"sqlite:///{self.home / 'mlflow.db'}"
        for name, default in {
            "intake": "intake",
            "keys": "keys.json",
            "experiments": "experiments.yaml",
            "promotions": "promotions.yaml",
            "duckdb_path": "marts.duckdb",
            "feast_registry": "feast/registry.db",
            "feast_online": "feast/online.db",
        }.items():
            if getattr(self, name) == Path():
                setattr(self, name, self.home / default)
        return self


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises ConfigError that names the variable, its value and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"NEARLINE_{'_'.join(map(str, e['loc'])).upper()}={e['input']!r}: {words(e)}"
            if e["loc"]
            else str(e["ctx"]["error"])
            for e in error.errors()
        ]
        raise ConfigError("wrong settings:\n  " + "\n  ".join(lines)) from error
