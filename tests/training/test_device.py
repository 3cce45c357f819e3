"""Where the model learns. The meta device stands for any other: it minds what lies elsewhere."""

import numpy as np
import pytest
import torch

from nearline.errors import ConfigError
from nearline.settings import settings
from training.dataset import Batch, Interactions
from training.device import device_of, learning_device, on_device
from training.evaluation import model_scorer
from training.model import Model, ModelConfig
from training.sequences import as_interactions, vocabulary_of
from training.teacher import Parent, batch_loss, training_batches

CONFIG = ModelConfig(
    items=9,
    types=1,
    content_width=3,
    dim=16,
    heads=2,
    layers=2,
    length=6,
    dropout=0.1,
    content_buckets=20,
    id_dropout=0.1,
    temperature=0.05,
)
pytestmark = pytest.mark.usefixtures("home")
META = torch.device("meta")


@pytest.fixture
def model() -> Model:
    return Model(CONFIG, torch.ones(CONFIG.items, CONFIG.content_width, dtype=torch.int64))


@pytest.fixture
def data() -> Interactions:
    users = {f"u{n}": [str((n + m) % 9) for m in range(5)] for n in range(9)}
    return as_interactions(users, vocabulary_of(users))


def a_batch(model: Model, data: Interactions) -> Batch:
    return next(training_batches(model, data, data.targets(), tokens=1000))


def test_all_that_a_step_needs_follows_the_model(model: Model, data: Interactions) -> None:
    batch = a_batch(model, data)
    plain = batch_loss(model, data, batch)
    parent = Parent(model, data.targets()[:9], weight=1.0)
    read: set[torch.device] = set()
    for each in (model, parent.model):
        each.register_forward_pre_hook(lambda _, inputs: read.update(i.device for i in inputs))
    for loss in (batch_loss, parent.loss):
        found = loss(model.to(META), data, batch)
        assert (found.device, found.shape, found.dtype) == (META, plain.shape, plain.dtype)
        found.backward()
        assert {p.grad.device for p in model.parameters() if p.grad is not None} == {META}
    assert read == {META}


def test_a_model_learns_there_and_comes_back(model: Model, data: Interactions) -> None:
    before = model_scorer(model, data)(data.targets())
    with on_device(model):
        assert device_of(model) == learning_device()
        np.testing.assert_allclose(model_scorer(model, data)(data.targets()), before, atol=1e-5)
    assert device_of(model) == torch.device("cpu")
    assert np.array_equal(model_scorer(model, data)(data.targets()), before)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.cuda.is_available()
    assert learning_device().type == ("cuda" if there else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert learning_device() == torch.device("cuda", 1)


def test_the_processor_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("NEARLINE_TRAIN_DEVICE", "cpu")
    settings.cache_clear()
    assert learning_device() == torch.device("cpu")


def test_a_gpu_that_is_asked_for_and_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("NEARLINE_TRAIN_DEVICE", "cuda")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        learning_device()
