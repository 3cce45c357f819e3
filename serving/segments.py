"""Ids in addresses: each is one segment of the path, percent-encoded, so that `/` is `%2F`.

Servers hand on the path decoded, where the slash of an id looks like any other: an address that was
mistyped would name another user. So routes are matched on the path as it was sent, and a segment is
decoded once it is known to be one.

`.` and `..` are no ids in an address. Clients and proxies resolve such segments on the way, even
encoded ones (RFC 3986, 6.2.2), so that another address is asked. They may be asked for by a body.
"""

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Path
from pydantic import AfterValidator
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from nearline.records import Id
from serving.errors import DOTS


class Segment(Convertor[str]):
    """`{name:segment}` of a route: one segment of the path as it was sent, decoded."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("segment", Segment())


def as_sent(scope: Scope) -> str:
    """The path of a request as it was sent."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.decode("ascii", "replace")


def _no_dots(item_or_user: str) -> str:
    if item_or_user in DOTS:
        raise ValueError("is no id in an address, as clients and proxies resolve it on the way")
    return item_or_user


SegmentId = Annotated[
    Id,
    AfterValidator(_no_dots),
    Path(
        description="Percent-encoded as one segment: a slash is %2F. Not `.` and `..`.",
        json_schema_extra={"not": {"enum": list(DOTS)}},
        examples=["50"],
    ),
]
