"""Whether the memory is enough to learn, and a clear word where it is not.

What is free is what the machine has, and what its control groups let this process have: a container
is ended without a word where it takes more.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import torch.nn as nn

from nearline.errors import StepFailed
from training.device import learning_device

_GIB = 2**30

_COPIES = 6
_COPIES_TOGETHER = 7

_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
_ALLOCATOR = "DefaultCPUAllocator"
"""What torch's plain RuntimeError names where the processor's memory ends."""


class _Group(NamedTuple):
    """Where a version of control groups tells of memory: its root, and its files' names.

    `idle` is the line of _STAT that tells what is used but would be given back.
    """

    root: Path
    limit: str
    used: str
    idle: str


_GROUPS = (
    _Group(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    _Group(
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
_OWN = Path("/proc/self/cgroup")
_STAT = "memory.stat"


def require_memory(model: nn.Module) -> None:
    """Raise StepFailed where a model cannot be learned in the memory that is free.

    Weights are kept six times: as they are, as gradients, as two moments of AdamW, as an average,
    and as the best average so far; seven times where processes learn together, which add their
    gradients up. What steps need comes on top.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    copies = _COPIES if beside == 1 else _COPIES_TOGETHER
    needed = copies * sum(weight.nbytes for weight in model.parameters())
    device = learning_device()
    there = free_memory(device) if device.type == "cuda" else free_memory(device) // beside
    if needed > there:
        raise StepFailed(
            f"the model takes {needed / _GIB:.1f} GiB to learn, and {there / _GIB:.1f} GiB are "
            "free: choose a smaller size, or one with `item_codes` where the catalogue is large "
            "(docs/explanation/model.md); nothing was published"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that are free where a model learns."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_allowed()])


def _allowed() -> Iterator[int]:
    """What each control group that this process is in may still take; of those that are bounded."""
    for group in _GROUPS:
        for folder in _own_folders(group.root):
            try:
                limit, used = (
                    int((folder / name).read_text()) for name in (group.limit, group.used)
                )
                told = dict(line.split() for line in (folder / _STAT).read_text().splitlines())
            except (OSError, ValueError):  # no such group, or one that says "max"
                continue
            yield max(limit - used + int(told.get(group.idle, 0)), 0)


def _own_folders(root: Path) -> list[Path]:
    """The folders of this process's group and of those around it. In a container it is the root."""
    told = _OWN.read_text().splitlines() if _OWN.is_file() else []
    own = {root / line.split(":", 2)[2].lstrip("/") for line in told}
    around = {up for folder in own for up in folder.parents if up.is_relative_to(root)}
    return sorted(own | around | {root})


def give_back() -> None:
    """Give what is free back to the system, where the C library is glibc.

    Steps of many sizes leave gaps between what is in use, which it would keep for steps to come.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def within_memory() -> Iterator[None]:
    """Raises StepFailed, with what to do, where the memory ends on the way."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, _OF_MEMORY) and _ALLOCATOR not in str(error):
            raise
        raise StepFailed(
            "the memory is full: choose a smaller size, fewer `batch_tokens`, or `negatives` and "
            "`item_codes` where the catalogue is large (docs/explanation/model.md); "
            f"nothing was published ({str(error).splitlines()[0][:200]})"
        ) from error
