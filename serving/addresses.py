"""Addresses of the API, as callers write them."""


def service_url(host: str, port: int, *, tls: bool) -> str:
    """The API's address; that of IPv6 stands in brackets (RFC 3986, 3.2.2)."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
