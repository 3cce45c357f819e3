from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.nn as nn

from nearline.errors import StepFailed
from training import memory as module
from training.memory import free_memory, give_back, require_memory, within_memory

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(64, 64)


def test_a_model_that_does_not_fit_is_told_before_it_learns(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 6 * sum(4 * weight.numel() for weight in model.parameters())
    monkeypatch.setattr(module, "free_memory", lambda _: needed)
    require_memory(model)
    monkeypatch.setattr(module, "free_memory", lambda _: needed - 1)
    with pytest.raises(StepFailed, match="GiB are free: choose a smaller size"):
        require_memory(model)


def test_memory_that_ends_on_the_way_is_told() -> None:
    told = "the memory is full: choose .* nothing was published"
    with pytest.raises(StepFailed, match=told), within_memory():
        torch.empty(1 << 60, dtype=torch.int8)
    with pytest.raises(StepFailed, match="the memory is full"), within_memory():
        np.empty(1 << 60, dtype=np.int8)
    with pytest.raises(RuntimeError, match="something else"), within_memory():
        raise RuntimeError("something else")


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("where", ["", "a.slice", "a.slice/b.service"])
def test_a_container_is_asked_how_much_it_may_take(
    version: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = module._GROUPS[version]._replace(root=tmp_path)
    monkeypatch.setattr(module, "_GROUPS", (group,))
    monkeypatch.setattr(module, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/a.slice/b.service\n0::/a.slice/b.service\n")
    unbounded = free_memory(CPU)
    folder = tmp_path / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / group.limit).write_text("3000\n")
    (folder / group.used).write_text("2500\n")
    (folder / module._STAT).write_text(f"anon 2100\n{group.idle} 400\n")
    assert free_memory(CPU) == 900
    (folder / group.limit).write_text("max\n")
    assert free_memory(CPU) > min(unbounded // 2, 10_000)


def test_processes_on_one_machine_share_its_memory(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(weight.nbytes for weight in model.parameters())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(module, "free_memory", lambda _: 14 * weights)
    require_memory(model)
    monkeypatch.setattr(module, "free_memory", lambda _: 14 * weights - 2)
    with pytest.raises(StepFailed, match="GiB are free"):
        require_memory(model)


def test_what_is_free_between_what_is_in_use_is_given_back() -> None:
    blocks = [b"x" * (64_000 + n % 2) for n in range(2000)]
    in_use, before = blocks[::50], psutil.Process().memory_info().rss
    del blocks
    give_back()
    assert before - psutil.Process().memory_info().rss > 60_000_000
    assert len(in_use) == 40
