"""Feast: entities, sources, views and services. Nothing computes here."""

import sys
from types import SimpleNamespace
from typing import Any


def _unchanged(target: Any) -> Any:
    return target


# What Feast's import does that nobody asks for here, in each worker and each task:
# - it imports torch wherever it is installed, for answers as tensors: 2 s and 240 MB;
# - typeguard reads the source of its classes and compiles it anew, to check the types of arguments:
#   two thirds of the whole import. Here mypy checks them, and no process but for this waits.
_INSTEAD: dict[str, Any] = {"typeguard": SimpleNamespace(typechecked=_unchanged)}
if "torch" not in sys.modules:
    _INSTEAD["torch"] = None

_before = {name: sys.modules.get(name) for name in _INSTEAD}
sys.modules.update(_INSTEAD)
try:
    import feast  # noqa: F401
finally:
    for _name, _module in _before.items():
        del sys.modules[_name]
        if _module is not None:
            sys.modules[_name] = _module
