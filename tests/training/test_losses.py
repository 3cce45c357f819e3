import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training import losses
from training.losses import Answers, catalogue_softmax, fast_precision

TARGETS = torch.tensor([3, 0, 3, 1, 2, 4, 4])


def directions(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 8, generator=generator), dim=1).requires_grad_()


def plain(states: Tensor, matrix: Tensor) -> list[Tensor]:
    """The loss by its formula, and its gradients as torch finds them."""
    scores = torch.exp(states @ matrix.T / 0.1)
    chances = scores / scores.sum(dim=1, keepdim=True)
    loss = -chances[torch.arange(7), TARGETS].log().mean()
    return [loss, *torch.autograd.grad(loss, (states, matrix))]


def chunked(states: Tensor, matrix: Tensor, precision: torch.dtype) -> list[Tensor]:
    loss = catalogue_softmax(states, matrix, TARGETS, temperature=0.1, precision=precision)
    return [loss, *torch.autograd.grad(loss, (states, matrix))]


@pytest.mark.parametrize("chunk", [1, 10, 12, 1000])
def test_loss_and_gradients_are_those_of_the_formula(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    monkeypatch.setattr(losses, "_LEAST_CHUNK", 1)
    both = directions(7, seed=1), directions(5, seed=2)
    for found, expected in zip(chunked(*both, torch.float32), plain(*both), strict=True):
        torch.testing.assert_close(found, expected)


def test_items_that_are_not_among_the_others_count_for_nothing() -> None:
    states, matrix = directions(7, seed=1), directions(6, seed=2)
    among = torch.tensor([True] * 5 + [False])
    loss = catalogue_softmax(states, matrix, TARGETS, temperature=0.1, among=among)
    found = [loss, *torch.autograd.grad(loss, (states, matrix))]
    five = matrix[:5].detach().requires_grad_()
    expected = plain(states, five)
    expected[2] = F.pad(expected[2], (0, 0, 0, 1))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chunk", [1, 12, 1000])
def test_answers_of_another_model_add_their_cross_entropy(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    monkeypatch.setattr(losses, "_LEAST_CHUNK", 1)
    both = directions(7, seed=1), directions(5, seed=2)
    kept, items = directions(7, seed=3).detach() / 0.2, directions(5, seed=4).detach()
    weights = torch.tensor([0, 1, 2, 0.5, 0, 3, 1])
    chances = (kept @ items.T).softmax(dim=1)
    logs = (both[0] @ both[1].T / 0.1).log_softmax(dim=1)
    told = -(weights * (chances * logs).sum(dim=1)).mean()
    expected = [told, *torch.autograd.grad(told, both)]

    answers = Answers(kept, items, weights)
    loss = catalogue_softmax(*both, TARGETS, temperature=0.1, answers=answers)
    found = [loss, *torch.autograd.grad(loss, both)]
    for whole, alone, added in zip(found, plain(*both), expected, strict=True):
        torch.testing.assert_close(whole, alone + added)


def test_lower_precision_changes_little() -> None:
    both = directions(7, seed=1), directions(5, seed=2)
    for found, expected in zip(chunked(*both, torch.bfloat16), plain(*both), strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.02 * expected.norm()
        assert not torch.equal(found, expected)


def test_the_smallest_temperature_overflows_nothing() -> None:
    states = directions(7, seed=1)
    loss = catalogue_softmax(states, states.detach()[:5], TARGETS, temperature=0.02)
    loss.backward()
    assert torch.isfinite(loss)
    assert states.grad is not None
    assert torch.isfinite(states.grad).all()


@pytest.mark.parametrize(
    ("can", "expected"),
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)],
)
def test_half_of_the_bits_where_the_processor_has_them(
    can: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, **can})
    assert fast_precision(torch.device("cpu")) == expected
