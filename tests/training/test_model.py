import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from nearline.errors import ConfigError
from training.model import Model, ModelConfig, rearranged
from training.neighbours import Graph
from training.recipe import load_recipe, parse_recipe

CONFIG = ModelConfig(
    items=9,
    types=2,
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

CHAIN = Graph.of(sparse.diags_array([[0.5] * 8, [0.5] * 8], offsets=[-1, 1]).tocsr())
"""Each item is a neighbour of the one before it and the one after it."""


@pytest.fixture
def model() -> Iterator[Model]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        content = torch.randint(1, 21, (CONFIG.items, CONFIG.content_width))
        model = Model(CONFIG, content).eval()
        model.item_tower.link(CHAIN)
        model.item_tower.touch(np.arange(CONFIG.items))
        with torch.no_grad():
            for table in (model.user_encoder.value_embedding, model.user_encoder.hour_embedding):
                table.weight[1:].normal_(std=0.1)
        yield model


def inputs(length: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(1, top + 1, (3, length), generator=generator) for top in (9, 2, 32, 192, 24)
    ]


def test_states_and_items_have_length_one(model: Model) -> None:
    states, matrix = model(*inputs(6))
    assert states.shape == (3, 6, 16)
    assert matrix.shape == (9, 16)
    for vectors in (states, matrix, model.item_matrix()):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


@pytest.mark.parametrize("part", range(5))
def test_no_state_looks_ahead(model: Model, part: int) -> None:
    columns = inputs(6)
    before, _ = model(*columns)
    columns[part][:, 4] = columns[part][:, 4] % 2 + 1
    after, _ = model(*columns)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
    assert not torch.equal(after[:, 4:], before[:, 4:])


def test_without_values_and_hours_it_is_the_model_that_has_no_place_for_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(CONFIG, torch.ones(CONFIG.items, CONFIG.content_width).long())
        drawn = torch.rand(1)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.nn.Embedding, "from_pretrained", lambda *_, **__: torch.nn.Identity()
            )
            Model(CONFIG, torch.ones(CONFIG.items, CONFIG.content_width).long())
        assert torch.equal(drawn, torch.rand(1)), "they draw no random numbers"
    columns = inputs(6)
    columns[3:] = [torch.zeros_like(column) for column in columns[3:]]
    states, _ = model(*columns)
    states.sum().backward()
    encoder = model.user_encoder
    for table in (encoder.value_embedding, encoder.hour_embedding):
        assert not table.weight.grad.any(), "and learn nothing of nothing"


def test_padding_at_the_right_changes_nothing(model: Model) -> None:
    short = inputs(4)
    padded = [torch.nn.functional.pad(column, (0, 2)) for column in short]
    torch.testing.assert_close(model(*padded)[0][:, :4], model(*short)[0])


def test_other_items_keep_their_vectors_and_new_ones_come_from_content(model: Model) -> None:
    content = model.item_tower.content.words
    rows = torch.tensor([3, 0, -1])
    other = rearranged(model, rows, torch.stack([content[3], content[0], content[3]])).eval()
    old, new = vectors_alone(model), other.item_tower()
    torch.testing.assert_close(new[:2], old[[3, 0]])
    torch.testing.assert_close(new[2], old[3] - model.item_tower.delta.weight[3])
    assert not torch.equal(new[2], new[0])
    assert other.config.items == 3
    assert len(other.item_tower.graph.items) == 0, "3 and 0 are no neighbours"


def vectors_alone(model: Model) -> torch.Tensor:
    """What items are without their neighbours."""
    alone = copy.deepcopy(model.item_tower)
    alone.link(Graph.empty(CONFIG.items))
    return alone()


def test_an_item_takes_in_its_neighbours(model: Model) -> None:
    alone, share = vectors_alone(model), model.item_tower.share
    expected = alone[4] + share * 0.5 * (alone[3] + alone[5])
    torch.testing.assert_close(model.item_tower()[4], expected)


def test_an_item_without_its_id_is_shown_without_its_neighbours(model: Model) -> None:
    tower = model.item_tower.train()
    tower.id_dropout = 1.0
    torch.testing.assert_close(tower(), tower.content())


def seeing(dropout: float = 0.0) -> Model:
    """A model whose items were given text and sound; item 3 was given no sound."""
    config = replace(CONFIG, given=(4, 0, 2), modality_dropout=dropout)
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(CONFIG.items, 6, generator=generator).half()
    given[3, 4:] = 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = torch.ones((CONFIG.items, CONFIG.content_width), dtype=torch.int64)
        return Model(config, words, given)


def test_given_vectors_are_projected_and_a_missing_one_is_nothing() -> None:
    content = seeing().eval().item_tower.content
    text, sound = content.projections
    told = content.given.float()
    expected = content.bag(content.words) + text(told[:, :4]) + sound(told[:, 4:])
    torch.testing.assert_close(content(), expected)
    torch.testing.assert_close(content()[3], (content.bag(content.words) + text(told[:, :4]))[3])


def test_in_training_modalities_are_left_out_each_by_itself() -> None:
    model = seeing(dropout=0.5)
    content = model.item_tower.content
    words, (text, sound) = content.bag(content.words), content.projections
    parts = text(content.given.float()[:, :4]), sound(content.given.float()[:, 4:])
    choices = [words, words + parts[0], words + parts[1], words + sum(parts)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [content.train()() for _ in range(20)]
    used = {
        next(n for n, choice in enumerate(choices) if torch.allclose(vectors[0], choice[0]))
        for vectors in found
    }
    assert used == {0, 1, 2, 3}


def test_other_items_bring_what_they_were_given() -> None:
    model = seeing().eval()
    model.item_tower.touch(np.arange(CONFIG.items))
    rows, words = torch.tensor([2, -1]), torch.ones((2, 3), dtype=torch.int64)
    given = torch.stack([model.item_tower.content.given[n] for n in (2, 5)])
    found, old = rearranged(model, rows, words, given).eval().item_tower(), model.item_tower()
    torch.testing.assert_close(found[0], old[2])
    torch.testing.assert_close(found[1], old[5] - model.item_tower.delta.weight[5])


def test_a_model_comes_back_with_its_graph(model: Model) -> None:
    again = Model.restored(CONFIG, model.state_dict()).eval()
    assert torch.equal(again.item_matrix(), model.item_matrix())


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_every_size_is_right(size: str) -> None:
    assert load_recipe(size).model.dim >= 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("heads: 2", "multiple of heads"),
        ("item_codes: 2", "multiple of item_codes"),
        ("temperature: 0", "temperature"),
        ("surprise: 1", "surprise"),
        (": :", "bad.yaml"),
    ],
)
def test_a_wrong_size_names_what_is_wrong(change: str, message: str) -> None:
    text = f"""
model: {{dim: 5, heads: 1, layers: 1, length: 4, dropout: 0, content_buckets: 16,
  id_dropout: 0, modality_dropout: 0, temperature: 1, {change}}}
learning: {{epochs: 1, patience: 1, learning_rate: 1, weight_decay: 0, neighbours: 1,
  batch_tokens: 16, warm_learning_rate: 1, warm_steps: 1, replay_ratio: 1, distillation: 1}}
"""
    text = text.replace("heads: 1, ", "") if change.startswith("heads") else text
    text = text.replace("temperature: 1, ", "") if change.startswith("temp") else text
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text, name="bad.yaml")


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(ConfigError, match="no model size 'huge'"):
        load_recipe("huge")
    with pytest.raises(ConfigError, match=r"model size /none\.yaml: there is no such file"):
        load_recipe("/none.yaml")


OWN = """
like: base
model: {item_codes: 16}
learning: {negatives: 4096}
"""


def test_a_large_catalogue_is_compared_in_part_unless_told_otherwise() -> None:
    learning = load_recipe("small").learning
    assert [learning.draws(items) for items in (50, 100_000, 100_001)] == [0, 0, 8192]
    for told in (0, 10):
        own = learning.model_copy(update={"negatives": told})
        assert own.draws(1_000_000) == told


def test_a_size_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_recipe(str(path))


def test_a_size_of_ones_own_tells_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(OWN)
    found, base = load_recipe(str(path)), load_recipe("base")
    assert (found.model.item_codes, found.learning.negatives) == (16, 4096)
    assert found.model.model_copy(update={"item_codes": 0}) == base.model
    assert found.learning.model_copy(update={"negatives": None}) == base.learning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like: huge", "`like` is 'huge': use small, base, large"),
        ("like: [small]", r"`like` is \['small'\]"),
        ("like:", "`like` is None"),
        ("like: own.yaml", "`like` is 'own.yaml'"),
        ("like: small\nmodel: 3", "model"),
        ("like: small\nlearning: {learning_rate: .inf}", "learning_rate"),
        ("like: small\nsurprise: 1", "surprise"),
        ("like: small\nmodel: {dims: 3}", "dims"),
        ("like: small\nmodel: {item_codes: 8}\nlearning: {neighbours: 0}", "by neighbours"),
    ],
)
def test_a_wrong_size_of_ones_own_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(path))
