"""Every error code of the API, and what the client raises for each.

An error answer is a problem of RFC 9457 (`application/problem+json`): `type`, `title`, `status`,
`detail`, `instance`, and beyond these `code`, `request_id` and the faulty fields in `errors`.

| code | status | what was wrong | the client raises |
|---|---|---|---|
| `bad_request` | 400 | the body is no JSON | RefusedRequest |
| `unauthorized` | 401 | the bearer key is missing, or is not known | Unauthorized |
| `forbidden` | 403 | the key's role may not do this | Forbidden |
| `unknown_item` | 404 | the item is in no catalogue and no release | UnknownItem |
| `unknown_user` | 404 | nothing is known of the user | UnknownUser |
| `unknown_release` | 404 | no such release in the store | RefusedRequest |
| `not_found` | 404 | no such address | RefusedRequest |
| `method_not_allowed` | 405 | the address does not take this method | RefusedRequest |
| `too_slow` | 408 | the body took longer than NEARLINE_CLIENT_TIMEOUT_S | RefusedRequest |
| `release_refused` | 409 | the release may not go live, now or at all | RefusedRequest |
| `corrupt_release` | 409 | a file of the release is missing or was changed | RefusedRequest |
| `too_large` | 413 | the body is longer than NEARLINE_MAX_BODY_BYTES | RefusedRequest |
| `unsupported_media_type` | 415 | the body is not sent as application/json | RefusedRequest |
| `foreign_host` | 421 | without keys: the header `Host` names another machine | RefusedRequest |
| `invalid` | 422 | an argument or a field is not what it must be | RefusedRequest |
| `event_refused` | 422 | the one event of the request was refused | RefusedRequest |
| `item_refused` | 422 | the one item of the request was refused | RefusedRequest |
| `too_many_requests` | 429 | the key asks more often than it may | RateLimited |
| `internal` | 500 | a bug, or a machine in trouble | ServiceFailed |
| `not_ready` | 503 | no release is active yet | ServiceNotReady |
| `not_kept` | 507 | the disk is full, or failed: nothing of the request was kept | NothingKept |

NearlineError
└── ServiceError             `code`, `status`, `request_id` say what the service answered
    ├── Unreachable          no answer: nobody listens there, or the connection broke
    │   └── ServiceTimeout   no answer within `timeout_s`
    ├── RefusedRequest       the request cannot be answered, or not even sent, as it is
    │   ├── Unauthorized
    │   ├── Forbidden
    │   ├── RateLimited      ask again in `retry_after_s`
    │   ├── UnknownItem
    │   └── UnknownUser
    ├── ServiceFailed        the service failed, or answered what is no answer of ours
    ├── ServiceNotReady      ask again once a release is active
    └── NothingKept          send it again later
"""

from collections.abc import Sequence
from typing import NamedTuple

from nearline.errors import NearlineError


class Kind(NamedTuple):
    """What all errors of one code share: the HTTP status, and a title for people."""

    status: int
    title: str


KINDS = {
    "bad_request": Kind(400, "The body cannot be read"),
    "unauthorized": Kind(401, "The key is missing or wrong"),
    "forbidden": Kind(403, "The key may not do this"),
    "unknown_item": Kind(404, "No such item"),
    "unknown_user": Kind(404, "Nothing is known of this user"),
    "unknown_release": Kind(404, "No such release"),
    "not_found": Kind(404, "No such address"),
    "method_not_allowed": Kind(405, "The address does not take this method"),
    "too_slow": Kind(408, "The body takes too long"),
    "release_refused": Kind(409, "The release may not go live"),
    "corrupt_release": Kind(409, "The release is damaged"),
    "too_large": Kind(413, "The body is too long"),
    "unsupported_media_type": Kind(415, "The body is of another type than JSON"),
    "foreign_host": Kind(421, "The request is for another machine"),
    "invalid": Kind(422, "An argument or a field is wrong"),
    "event_refused": Kind(422, "The event was refused"),
    "item_refused": Kind(422, "The item was refused"),
    "too_many_requests": Kind(429, "The key asks too often"),
    "internal": Kind(500, "The service failed"),
    "not_ready": Kind(503, "There is nothing to answer from yet"),
    "not_kept": Kind(507, "What was sent cannot be kept"),
}
"""Error code → its kind."""


DOTS = (".", "..")
"""Ids that an address cannot hold: see serving/segments.py."""


class Fault(NamedTuple):
    """One wrong field: its `pointer` (such as `query.limit`), and what is wrong with it."""

    pointer: str
    detail: str


class ServiceError(NearlineError):
    """What the API answers instead of an answer, and what the client raises for it."""

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        faults: Sequence[Fault] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.request_id = request_id
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> Kind:
        """Status and title of the code."""
        return KINDS.get(self.code, KINDS["internal"])

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return self.kind.status


class Unreachable(ServiceError):
    """No answer: nobody listens there, or the connection broke."""


class ServiceTimeout(Unreachable):
    """No answer within `timeout_s`."""


class RefusedRequest(ServiceError):
    """The request cannot be answered, or not even sent, as it is."""

    code = "invalid"


class Unauthorized(RefusedRequest):
    """The bearer key is missing, or is not known."""

    code = "unauthorized"


class Forbidden(RefusedRequest):
    """The key's role may not do this."""

    code = "forbidden"


class RateLimited(RefusedRequest):
    """The key asks more often than it may; `retry_after_s` says when to ask again."""

    code = "too_many_requests"


class UnknownItem(RefusedRequest):
    """The item is in no catalogue and in no release."""

    code = "unknown_item"


class UnknownUser(RefusedRequest):
    """Nothing is known of the user."""

    code = "unknown_user"


class ServiceFailed(ServiceError):
    """The service failed, or what answered is not the service."""


class ServiceNotReady(ServiceError):
    """No release is active yet."""

    code = "not_ready"


class NothingKept(ServiceError):
    """The service's disk is full, or failed: nothing of the request was kept. Send it again."""

    code = "not_kept"


_OWN: dict[str, type[ServiceError]] = {
    kind.code: kind
    for kind in (
        *(Unauthorized, Forbidden, RateLimited, UnknownItem, UnknownUser),
        *(ServiceNotReady, NothingKept),
    )
}


def error_for(
    code: str,
    message: str,
    *,
    request_id: str | None = None,
    faults: Sequence[Fault] = (),
    retry_after_s: float | None = None,
) -> ServiceError:
    """The exception of an error answer."""
    status = KINDS.get(code, KINDS["internal"]).status
    kind = _OWN.get(code, RefusedRequest if status < 500 else ServiceFailed)
    return kind(
        message, code=code, request_id=request_id, faults=faults, retry_after_s=retry_after_s
    )
