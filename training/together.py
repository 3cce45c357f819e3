"""Several processes that learn one model: each takes its share of every step.

torchrun starts them: `torchrun --nproc-per-node=2 --no-python -- nearline evaluate …`. A step goes
down the mean loss of all shares, as one process would have made it of the same events, and the
weights stay the same everywhere. This is data-parallel training as of Li et al. 2020, "PyTorch
Distributed"; shares count by their targets, as they are of unequal size. A process alone does none
of it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from training.device import learning_device

Share = TypeVar("Share")
Told = TypeVar("Told")


@contextmanager
def together(seed: int) -> Iterator[None]:
    """Joined with the other processes that torchrun started, while it lasts.

    Dropout falls otherwise in each. Gloo on processors, NCCL on GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    device = learning_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(seed + dist.get_rank())
    try:
        yield
    finally:
        dist.destroy_process_group()


def members() -> int:
    """The processes that learn together; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def place() -> int:
    """This process's number among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def leads() -> bool:
    """Whether this process tells, keeps and publishes what all have learned."""
    return os.environ.get("RANK", "0") == "0"


def leave_the_rest_to_the_leader() -> None:
    """End this process, in good order, unless it leads."""
    if not leads():
        raise SystemExit(0)


def shares(parts: Iterable[Share]) -> Iterator[Share | None]:
    """Of each step, so many parts in a row as there are members, this process's own.

    None where the last step has none for it.
    """
    rest, own = iter(parts), place()
    while step := list(islice(rest, members())):
        yield step[own] if own < len(step) else None


def mean_of_all(parameters: Sequence[Tensor], loss: Tensor, targets: int) -> Tensor:
    """Make gradients those of the mean loss of all members' targets, and return that loss.

    `loss` is the mean of this process's own `targets`; of none it is nothing.
    """
    if members() == 1:
        return loss
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    parts = [*(each.flatten() for each in own), loss.detach().reshape(1), loss.new_ones(1)]
    flat = torch.cat(parts).mul_(targets)
    dist.all_reduce(flat)
    flat /= flat[-1].clone()
    *means, mean_loss, _ = flat.split([*(p.numel() for p in parameters), 1, 1])
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean.view_as(parameter)
    return mean_loss.squeeze()


def any_of_all(here: bool) -> bool:
    """Whether it is so in any of the processes."""
    if members() == 1:
        return here
    told = torch.tensor(int(here), device=learning_device())
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)


def of_all(here: Told) -> list[Told]:
    """What each process tells, in the order of their places."""
    if members() == 1:
        return [here]
    told: list[Told] = [here] * members()
    dist.all_gather_object(told, here)
    return told


def of_the_leader(figure: Callable[[], float]) -> float:
    """What the leader finds, told to all."""
    if members() == 1:
        return figure()
    found = figure() if leads() else 0.0
    told = torch.tensor(found, dtype=torch.float64, device=learning_device())
    dist.broadcast(told, 0)
    return float(told)
