"""Which hosts are this machine, by name or by address."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of this name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=16)
def names_loopback(header: str) -> bool:
    """Whether a request's header `Host`, such as `localhost:8900` or `[::1]`, names this machine.

    A site may have its own name lead to this machine, and its pages ask here as if it were theirs;
    the header still has that name. Only what is no browser sends none.
    """
    try:
        return not header or is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False
