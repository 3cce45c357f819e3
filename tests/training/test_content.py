import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA
from nearline.sources.dataset import conform
from nearline.words import LONGEST, bucket
from training.content import content_ids, given_vectors, given_widths, in_order


def items(*rows: dict[str, object]) -> pa.Table:
    return conform(pd.DataFrame(list(rows)), ITEM_SCHEMA)


def test_ids_are_padded_at_the_right_and_never_zero_within() -> None:
    table = items(
        {"item_id": "a", "title": "Red red", "categories": ["x"]}, {"item_id": "b", "title": ""}
    )
    ids = content_ids(table, buckets=50)
    assert ids.shape == (2, LONGEST)
    assert [int((row > 0).sum()) for row in ids] == [4, 1]
    assert ids.max() <= 50


def test_an_item_without_any_text_still_has_a_feature() -> None:
    table = items({"item_id": "a"}, {"item_id": "b"})
    assert content_ids(table, buckets=50)[:, 0].tolist() == [bucket("any", 50)] * 2


def test_a_long_text_is_cut() -> None:
    text = " ".join(f"w{n}" for n in range(500))
    assert (content_ids(items({"item_id": "a", "text": text}), buckets=9999) > 0).all()


def test_rows_come_in_the_order_asked_for_and_unknown_ones_are_null() -> None:
    table = items({"item_id": "a", "title": "A"}, {"item_id": "b", "title": "B"})
    assert in_order(table, ["b", "gone", "a"])["title"].to_pylist() == ["B", None, "A"]


def test_given_vectors_stand_side_by_side_each_of_length_one() -> None:
    table = items(
        {"item_id": "a", "image_vector": [3.0, 4.0], "audio_vector": [1.0, 0.0, 0.0]},
        {"item_id": "b"},
        {"item_id": "c", "image_vector": [0.0, -2.0], "audio_vector": None},
        {"item_id": "d", "image_vector": [0.0, 0.0]},
        {"item_id": "e", "image_vector": [3e30, 4e30]},
    )
    assert given_widths(table) == (0, 2, 3)
    found = given_vectors(table, (0, 2, 3))
    assert found.dtype == np.float16
    expected = [[0.6, 0.8, 1, 0, 0], [0] * 5, [0, -1, 0, 0, 0], [0] * 5, [0.6, 0.8, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert given_vectors(table, (0, 2, 0)).shape == (5, 2), "a sound that the model does not hear"
    assert given_vectors(table, (7, 2, 3))[:, :7].max() == 0, "a text that no item has any more"


@pytest.mark.parametrize(
    ("vector", "widths", "message"),
    [
        ([1.0], (0, 2, 0), "item 'b': image_vector has 1 numbers, those of other items have 2"),
        ([1.0, np.nan], (0, 2, 0), "item 'b': image_vector holds what is no finite number"),
        ([1.0, 2.0], (0, 3, 0), "image_vectors have 2 numbers, the model reads 3"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    vector: list[float], widths: tuple[int, ...], message: str
) -> None:
    table = items(
        {"item_id": "a", "image_vector": [1.0, 2.0]}, {"item_id": "b", "image_vector": vector}
    )
    with pytest.raises(BadInput, match=message):
        given_vectors(table, widths)
