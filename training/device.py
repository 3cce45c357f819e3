"""Where the model learns: on a GPU where there is one, else on the processor.

Only learning and what watches it happen there. A model comes from the processor and goes back to
it, so that files, the gate and serving need to know of one place alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nearline.errors import ConfigError
from nearline.settings import settings

# cuBLAS repeats its sums only with a workspace of fixed size, told before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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


def device_of(model: nn.Module) -> torch.device:
    """Where a model lives now."""
    return next(model.parameters()).device


def placed(array: np.ndarray, device: torch.device) -> Tensor:
    """The numbers of an array as a tensor there."""
    return torch.from_numpy(array).to(device)
