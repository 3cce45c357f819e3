"""Where the model learns: on a GPU where there is one, else on the processor.

Only learning and what watches it happen there. A model comes from the processor and goes back to
it, so that files, the gate and serving need to know of one place alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
import torch.nn as nn
from torch import Tensor

from nearline.errors import ConfigError, StepFailed
from nearline.settings import settings

# cuBLAS repeats its sums only with a workspace of fixed size, told before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

_GIB = 2**30

_COPIES = 6

_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
_ALLOCATOR = "DefaultCPUAllocator"
"""What torch's plain RuntimeError names where the processor's memory ends."""


def learning_device() -> torch.device:
    """The device of the settings; of several processes of torchrun each has a GPU of its own.

    Raises ConfigError where a GPU is asked for and there is none.
    """
    asked, there = settings().train_device, torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ConfigError(
            "NEARLINE_TRAIN_DEVICE is cuda, but torch finds no GPU: install its CUDA build, "
            "or set it to auto"
        )
    if asked == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def on_device(model: nn.Module) -> Iterator[None]:
    """The model lives where it learns, while it lasts."""
    model.to(learning_device())
    try:
        yield
    finally:
        model.cpu()


def require_memory(model: nn.Module) -> None:
    """Raise StepFailed where a model cannot be learned in the memory that is free.

    Weights are kept six times: as they are, as gradients, as two moments of AdamW, as an average,
    and as the best average so far. What steps need comes on top.
    """
    needed = _COPIES * sum(weight.nbytes for weight in model.parameters())
    there = free_memory(learning_device())
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
    return psutil.virtual_memory().available


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


def device_of(model: nn.Module) -> torch.device:
    """Where a model lives now."""
    return next(model.parameters()).device


def placed(array: np.ndarray, device: torch.device) -> Tensor:
    """The numbers of an array as a tensor there."""
    return torch.from_numpy(array).to(device)
