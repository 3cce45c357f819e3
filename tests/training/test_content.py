import pandas as pd
import pyarrow as pa

from nearline.schema import ITEM_SCHEMA
from nearline.sources.dataset import conform
from training.content import LONGEST, bucket, content_ids, features, in_order


def items(*rows: dict[str, object]) -> pa.Table:
    return conform(pd.DataFrame(list(rows)), ITEM_SCHEMA)


def test_features_are_words_pairs_and_whole_categories() -> None:
    assert list(features("The Red Shoes", "Ballet.", ["Film Noir"])) == [
        "any",
        "category:film noir",
        "word:the",
        "word:red",
        "word:shoes",
        "pair:the red",
        "pair:red shoes",
        "word:ballet",
    ]


def test_a_bucket_is_the_same_in_every_process() -> None:
    assert [bucket(word, 1000) for word in ("any", "word:red", "category:été")] == [261, 692, 589]


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
