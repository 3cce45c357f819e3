"""Every error code of the API, and what the client raises for each.

An error answer is `{"error": {"code": ..., "message": ...}}` with the status of its code:

| code | status | what was wrong | the client raises |
|---|---|---|---|
| `bad_request` | 400 | the body is no JSON | RefusedRequest |
| `unauthorized` | 401 | the bearer key is missing or wrong | Unauthorized |
| `unknown_item` | 404 | the item is in no catalogue and no release | UnknownItem |
| `not_found` | 404 | no such address | RefusedRequest |
| `method_not_allowed` | 405 | the address does not take this method | RefusedRequest |
| `too_large` | 413 | the body is longer than NEARLINE_MAX_BODY_BYTES | RefusedRequest |
| `unsupported_media_type` | 415 | the body is not sent as application/json | RefusedRequest |
| `invalid` | 422 | an argument or a field is not what it must be | RefusedRequest |
| `event_refused` | 422 | the one event of the request was refused | RefusedRequest |
| `internal` | 500 | a bug, or a machine in trouble | ServiceFailed |
| `not_ready` | 503 | no release is active yet | ServiceNotReady |

NearlineError
└── ServiceError             `code`, `status`, `request_id` say what the service answered
    ├── Unreachable          no answer: nobody listens there, or the connection broke
    │   └── ServiceTimeout   no answer within `timeout_s`
    ├── RefusedRequest       the request cannot be answered as it is
    │   ├── Unauthorized
    │   └── UnknownItem
    ├── ServiceFailed        the service failed, or answered what is no answer of ours
    └── ServiceNotReady      ask again once a release is active
"""

from nearline.errors import NearlineError

STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "unknown_item": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid": 422,
    "event_refused": 422,
    "internal": 500,
    "not_ready": 503,
}
"""Error code → HTTP status."""


class ServiceError(NearlineError):
    """What the API answers instead of an answer, and what the client raises for it."""

    code = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.request_id = request_id

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUS.get(self.code, 500)


class Unreachable(ServiceError):
    """No answer: nobody listens there, or the connection broke."""


class ServiceTimeout(Unreachable):
    """No answer within `timeout_s`."""


class RefusedRequest(ServiceError):
    """The request cannot be answered as it is."""

    code = "invalid"


class Unauthorized(RefusedRequest):
    """The bearer key is missing or wrong."""

    code = "unauthorized"


class UnknownItem(RefusedRequest):
    """The item is in no catalogue and in no release."""

    code = "unknown_item"


class ServiceFailed(ServiceError):
    """The service failed, or what answered is not the service."""


class ServiceNotReady(ServiceError):
    """No release is active yet."""

    code = "not_ready"


def error_for(code: str, message: str, request_id: str | None) -> ServiceError:
    """The exception of an error answer."""
    kinds = {kind.code: kind for kind in (Unauthorized, UnknownItem, ServiceNotReady)}
    default = RefusedRequest if STATUS.get(code, 500) < 500 else ServiceFailed
    return kinds.get(code, default)(message, code=code, request_id=request_id)
