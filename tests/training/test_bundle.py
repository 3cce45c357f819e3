from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from nearline import bundle as names
from nearline.content import ContentVectors
from nearline.encoder import UserEncoder
from nearline.errors import BadInput, CorruptRelease
from nearline.given import Given, GivenVectors
from nearline.lenders import Lenders
from nearline.releases import Release, ReleaseManifest
from nearline.schema import ITEM_SCHEMA
from nearline.sequence import PAD, ModelInput, Vocabulary
from nearline.sources.dataset import conform
from nearline.windows import Window
from nearline.words import LONGEST, numbers
from training.bundle import Bundle, read_bundle, with_items, write_bundle
from training.lending import borrow
from training.model import Model, ModelConfig
from training.recipe import load_recipe

WINDOW = Window.parse("2026-01-01T00:00Z", "2026-01-02T00:00Z")
FILES = {
    names.ITEM_IDS,
    names.EVENT_TYPES,
    names.ITEM_MATRIX,
    names.ITEM_NORMS,
    names.WORD_VECTORS,
    names.LENDERS,
    names.ALIKE,
    names.ALIKE_SHARES,
    names.ENCODER,
    names.ENCODER_COMPRESSED,
    names.POPULARITY,
    names.CONFIG,
    names.WEIGHTS,
}


class Item(NamedTuple):
    """What an item says about itself."""

    title: str | None = None
    text: str | None = None
    categories: Sequence[str] | None = None
    given: Given | None = None


def make(layers: int = 2) -> Bundle:
    config = ModelConfig(30, 2, LONGEST, 32, 2, layers, 10, 0.1, 64, 0.1, 0.05)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Model(config, torch.randint(1, 65, (30, LONGEST))).eval()
        with torch.no_grad():
            for table in (model.user_encoder.value_embedding, model.user_encoder.hour_embedding):
                table.weight[1:].normal_(std=0.1)
    vocabulary = Vocabulary(tuple(f"i{n}" for n in range(30)), ("view", "like"))
    popularity = np.arange(30, dtype=np.float32)
    return Bundle(model, vocabulary, popularity, "small", load_recipe("small").learning)


def release(folder: Path) -> Release:
    manifest = ReleaseManifest(
        version="v",
        kind="nightly",
        parent=None,
        base=None,
        window_start=WINDOW.start,
        window_end=WINDOW.end,
        promoted=True,
        reasons=[],
        metrics={},
    )
    return Release(folder, manifest)


def history(length: int, padding: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(length)
    columns = [rng.integers(1, top + 1, (4, length)) for top in (30, 2, 32, 192, 24)]
    return [np.pad(column, ((0, 0), (0, padding))) for column in columns]


def test_every_file_is_there_and_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_bundle(tmp_path / name, make())
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(("length", "padding"), [(1, 0), (1, 4), (7, 0), (7, 3), (10, 0)])
def test_the_served_encoder_gives_the_last_state_of_the_model(
    tmp_path: Path, length: int, padding: int
) -> None:
    bundle = make()
    write_bundle(tmp_path, bundle)
    with torch.no_grad():
        states, matrix = bundle.model(*map(torch.from_numpy, history(length)))
    padded = ModelInput(*history(length, padding))
    found = UserEncoder.open(tmp_path)(padded)
    np.testing.assert_allclose(found, states[:, -1].numpy(), atol=1e-5)
    np.testing.assert_array_equal(names.read_matrix(tmp_path), matrix.numpy())
    small = UserEncoder.open(tmp_path, names.ENCODER_COMPRESSED)(padded)
    assert ((small * found).sum(axis=1) > 0.999).all()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_users_are_encoded_together_as_each_alone(tmp_path: Path, layers: int) -> None:
    write_bundle(tmp_path, make(layers))
    encode = UserEncoder.open(tmp_path)
    users, lengths = ModelInput(*history(10)), np.array([1, 4, 9, 10])
    inside = np.arange(10) < lengths[:, None]
    together = encode(ModelInput(*(np.where(inside, column, 0) for column in users)))
    for row, length in enumerate(lengths):
        alone = encode(ModelInput(*(column[[row], :length] for column in users)))
        np.testing.assert_allclose(together[[row]], alone, atol=1e-6)
    with torch.no_grad():
        states, _ = make(layers).model(*map(torch.from_numpy, users))
    np.testing.assert_allclose(together, states[np.arange(4), lengths - 1].numpy(), atol=1e-5)


def test_the_compressed_encoder_is_smaller(tmp_path: Path) -> None:
    write_bundle(tmp_path, make())
    sizes = [(tmp_path / n).stat().st_size for n in (names.ENCODER_COMPRESSED, names.ENCODER)]
    assert sizes[0] < sizes[1]


def test_no_path_of_this_machine_is_in_the_encoder(tmp_path: Path) -> None:
    write_bundle(tmp_path, make())
    for name in (names.ENCODER, names.ENCODER_COMPRESSED):
        assert str(Path(__file__).parents[2]).encode() not in (tmp_path / name).read_bytes()


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    bundle = make()
    write_bundle(tmp_path, bundle)
    again = read_bundle(release(tmp_path))
    assert again.vocabulary == bundle.vocabulary
    assert (again.size, again.learning) == (bundle.size, bundle.learning)
    np.testing.assert_array_equal(again.popularity, bundle.popularity)
    torch.testing.assert_close(again.model.item_matrix(), bundle.model.item_matrix())


@pytest.mark.parametrize("name", [names.WEIGHTS, names.CONFIG, names.POPULARITY])
def test_a_damaged_release_is_named(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path, make())
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(CorruptRelease, match="release v cannot be learned from"):
        read_bundle(release(tmp_path))


def test_an_item_that_left_the_catalogue_keeps_its_content() -> None:
    bundle = make()
    catalogue = conform(pd.DataFrame({"item_id": ["i1", "new"], "title": ["A", "B"]}), ITEM_SCHEMA)
    model = with_items(bundle, ("i0", "i1", "new"), catalogue)
    words, old = (each.item_tower.content.words for each in (model, bundle.model))
    assert words[0].tolist() == old[0].tolist()
    assert words[1].tolist() != old[1].tolist()
    assert model.item_tower.delta.weight[2].abs().sum() == 0


def test_serving_makes_the_vector_of_a_new_item_that_the_next_release_has(tmp_path: Path) -> None:
    bundle = make()
    bundle.model.item_tower.touch(np.arange(0, 30, 2))
    borrow(bundle.model)
    write_bundle(tmp_path, bundle)
    arrays = names.WORD_VECTORS, names.ITEM_MATRIX, names.ITEM_NORMS
    words = ContentVectors(
        *(np.load(tmp_path / name) for name in arrays), Lenders.read(tmp_path / names.LENDERS)
    )
    new = {"item_id": ["new"], "title": ["Red shoes"], "text": ["Ballet."], "categories": [["x"]]}
    everything = (*bundle.vocabulary.item_ids, "new")
    model = with_items(bundle, everything, conform(pd.DataFrame(new), ITEM_SCHEMA))
    assert len(model.item_tower.loans.items) > len(bundle.model.item_tower.loans.items)
    expected = model.item_matrix()[-1].detach().numpy()
    found = words.of([Item("Red shoes", "Ballet.", ["x"])])[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_serving_reads_the_vectors_that_a_new_item_is_given_as_the_next_release_does(
    tmp_path: Path,
) -> None:
    made, rng = make(), np.random.default_rng(0)
    config = replace(made.model.config, given=(3, 4, 0))
    vectors = torch.from_numpy(rng.normal(size=(config.items, 7)))
    given = torch.cat([F.normalize(part) for part in vectors.split([3, 4], dim=1)], dim=1).half()
    words = made.model.item_tower.content.words.clone()
    words[words == numbers(None, None, None, buckets=config.content_buckets)[0]] = PAD
    model = Model(config, words, given).eval()
    model.item_tower.touch(np.arange(0, 30, 2))
    borrow(model)
    bundle = replace(made, model=model)
    write_bundle(tmp_path, bundle)
    arrays = names.WORD_VECTORS, names.ITEM_MATRIX, names.ITEM_NORMS
    content = ContentVectors(
        *(np.load(tmp_path / name) for name in arrays),
        Lenders.read(tmp_path / names.LENDERS),
        GivenVectors.read(tmp_path),
    )
    text, image = rng.normal(size=3).tolist(), rng.normal(size=4).tolist()
    new = {
        "item_id": ["silent", "both"],
        "title": [None, "Red shoes"],
        "text_vector": [text, None],
        "image_vector": [image, image],
    }
    everything = (*bundle.vocabulary.item_ids, "silent", "both")
    grown = with_items(bundle, everything, conform(pd.DataFrame(new), ITEM_SCHEMA))
    expected = grown.item_matrix()[-2:].detach().numpy()
    silent = Item(given={"text_vector": text, "image_vector": image})
    both = Item("Red shoes", given={"image_vector": image})
    np.testing.assert_allclose(content.of([silent, both]), expected, atol=2e-3)

    at_first = {name: [None, None] if "vector" in name else new[name] for name in new}
    plain = with_items(bundle, everything, conform(pd.DataFrame(at_first), ITEM_SCHEMA))
    types = bundle.vocabulary.event_types
    hour = replace(bundle, model=plain, vocabulary=Vocabulary(everything, types))
    later = with_items(hour, everything, conform(pd.DataFrame(new), ITEM_SCHEMA))
    np.testing.assert_allclose(later.item_matrix()[-2:].detach().numpy(), expected, atol=1e-6)


def test_items_bring_their_vectors_to_a_release_and_back(tmp_path: Path) -> None:
    made = make()
    config = replace(made.model.config, given=(0, 2, 0))
    given = torch.tensor([[0.6, 0.8]] * config.items).half()
    model = Model(config, made.model.item_tower.content.words, given).eval()
    write_bundle(tmp_path, replace(made, model=model))
    bundle = read_bundle(release(tmp_path))
    torch.testing.assert_close(bundle.model.item_matrix(), model.item_matrix())
    frame = pd.DataFrame({"item_id": ["i1", "new"], "image_vector": [[2.0, 0.0], [0.0, 3.0]]})
    catalogue = conform(frame, ITEM_SCHEMA)
    found = with_items(bundle, ("i0", "i1", "new"), catalogue).item_tower.content.given
    expected = torch.tensor([[0.6, 0.8], [1, 0], [0, 1]])
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=0)
    longer = conform(frame.assign(image_vector=[[1.0] * 3] * 2), ITEM_SCHEMA)
    with pytest.raises(BadInput, match="have 3 numbers, the model reads 2: `nearline train`"):
        with_items(bundle, ("i1", "new"), longer)
