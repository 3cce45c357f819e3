"""The Redis that the settings name; nobody waits for it longer than they say."""

from typing import TYPE_CHECKING

from nearline.settings import settings

if TYPE_CHECKING:
    from redis import Redis
    from redis.retry import Retry


def open_redis() -> "Redis":
    """A client that gives up a connection which is silent for NEARLINE_REDIS_TIMEOUT_S.

    Each of its calls raises redis.RedisError where there is no answer.
    """
    from redis import Redis  # 0.15 s, which a store on SQLite need not pay

    return Redis.from_url(
        settings().redis_url,
        decode_responses=True,
        socket_timeout=settings().redis_timeout_s,
        socket_connect_timeout=settings().redis_timeout_s,
        retry=made_anew(),
    )


def made_anew() -> "Retry":
    """How a broken connection is made anew: a few times within a second. A silent one is not."""
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import ConnectionError
    from redis.retry import Retry

    return Retry(ExponentialBackoff(cap=0.5, base=0.1), 3, (ConnectionError,))
