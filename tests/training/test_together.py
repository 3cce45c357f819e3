"""Two processes that torchrun starts learn one model, as one process would have."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch

from benchmarks.harness import free_port
from nearline.settings import settings
from training import together

USERS, ITEMS, STEPS = 120, 40, 8

LEARN = """
import os, sys
import torch
from nearline.cli import main
from training import learning, protocols

weights = f"{sys.argv.pop()}/{os.environ['RANK']}.pt"

def fit(model, data, targets, *arguments, **options):
    fitted = learning.fit(model, data, targets, *arguments, **options)
    torch.save(model.state_dict(), weights)
    return fitted

protocols.fit = fit
main()
"""


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Each user goes through eight of forty items in the items' order."""
    rows = [
        f"u{n} " + " ".join(f"i{(7 * n + step) % ITEMS:02}" for step in range(STEPS))
        for n in range(USERS)
    ]
    path = tmp_path / "sequences.txt"
    path.write_text("\n".join(rows))
    return path


def evaluated(sequences: Path, *, processes: int) -> dict[str, Any]:
    """What `nearline evaluate` finds, started by torchrun; its weights lie beside the file."""
    told = sequences.with_name("figures.json")
    torchrun = ["-m", "torch.distributed.run", "--master-port", str(free_port()), "--no-python"]
    learn = ["--nproc-per-node", str(processes), "--", sys.executable, "-c", LEARN]
    asked = ["evaluate", "--sequences", str(sequences), "--json", str(told), "--seed", "3"]
    command = [sys.executable, *torchrun, *learn, *asked, str(sequences.parent)]
    done = run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(told.read_text())
    return found | {"tables": done.stdout.count("train_seconds")}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(sequences: Path) -> None:
    two = evaluated(sequences, processes=2)
    first, second = (torch.load(sequences.with_name(f"{rank}.pt")) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert two["tables"] == 1, "the leader alone tells"
    one = evaluated(sequences, processes=1)
    assert one["ndcg@10"] > 0.9
    assert two["ndcg@10"] == pytest.approx(one["ndcg@10"], abs=0.05)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A group of one process."""
    places = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (places | {"MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo")
    yield
    torch.distributed.destroy_process_group()
    settings.cache_clear()


def test_shares_count_by_their_targets(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    frozen = torch.nn.Parameter(torch.tensor([5.0]))
    other = torch.tensor([3.0, 3.0, 0.0, 4.0]) * 3  # gradients and loss of three targets

    def sum_with_the_other(flat: torch.Tensor, *_: object) -> None:
        flat += torch.cat([other, torch.tensor([3.0])])

    monkeypatch.setattr(together, "members", lambda: 2)
    monkeypatch.setattr(together.dist, "all_reduce", sum_with_the_other)
    weight.grad = torch.tensor([7.0, -1.0])
    loss = together.mean_of_all([weight, frozen], torch.tensor(8.0), targets=1)
    assert loss == (8 + 3 * 4) / 4
    assert weight.grad.tolist() == [(7 + 3 * 3) / 4, (-1 + 3 * 3) / 4]


def test_each_takes_its_own_of_every_step(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "members", lambda: 2)
    monkeypatch.setattr(together.dist, "get_rank", lambda: 1)
    assert list(together.shares("abcde")) == ["b", "d", None]


def test_a_process_alone_does_none_of_it() -> None:
    assert list(together.shares("abc")) == ["a", "b", "c"]
    assert together.of_the_leader(lambda: 0.5) == 0.5
    assert (together.of_all("a"), together.place()) == (["a"], 0)
    together.leave_the_rest_to_the_leader()
