"""What the features of a lake are computed by: the domain, and the length of sequences.

An hour is computed from what earlier hours left: partials, tails, states. Hours of one definition
that followed hours of another would be wrong in silence, so the lake keeps its definition, and a
new one takes effect only where all hours are computed again.
"""

from hashlib import sha256
from typing import Any

from nearline.domains import load_domain
from nearline.errors import BadInput
from nearline.lake import EVENTS, Lake
from nearline.settings import settings
from nearline.windows import Window
from pipeline.chunks import forget_all
from pipeline.due import following

_NOTE = "_definition.json"


def require_same(lake: Lake, window: Window) -> None:
    """Raise BadInput where hours of `window` would follow hours of another definition.

    Where `window` holds all hours that are computed, the new definition becomes the lake's, and
    they are stale until they are computed by it.
    """
    known, now = lake.read_note(_NOTE), _definition()
    if known == now:
        return
    computed = lake.ledger(EVENTS).computed()
    if known is not None and computed:
        every = Window(computed[0].start, computed[-1].end)
        if not window.covers(every):
            raise BadInput(_refusal(known, now, every))
        for ledger, hours in following(lake, every, every):
            ledger.make_stale(hours)
        forget_all(lake)
    lake.write_note(_NOTE, now)


def _definition() -> dict[str, Any]:
    domain = load_domain(settings().domain)
    return {
        "NEARLINE_DOMAIN": domain.name,
        "NEARLINE_SEQUENCE_LENGTH": settings().sequence_length,
        "sha256 of the domain": sha256(domain.model_dump_json().encode()).hexdigest(),
    }


def _refusal(known: dict[str, Any], now: dict[str, Any], every: Window) -> str:
    changes = [
        f"{name} was {known[name]}, is {now[name]}" for name in now if now[name] != known[name]
    ]
    hours = f"--start {every.start:%Y-%m-%dT%H:%MZ} --end {every.end:%Y-%m-%dT%H:%MZ}"
    return (
        f"the features of this lake were computed by another definition ({'; '.join(changes)}): "
        f"set it back, or compute all hours again by the new one: nearline features {hours}"
    )
