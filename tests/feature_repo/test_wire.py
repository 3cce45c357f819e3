"""Columns are encoded to the bytes that Feast's own conversion gives."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from feature_repo.views import BATCH_VIEWS
from feature_repo.wire import encode_keys, encode_values, value_texts
from nearline.errors import BadInput
from nearline.schema import TIMESTAMP

MOMENT = datetime(2026, 3, 1, 10, 0, 0, 999_999, tzinfo=UTC)
COLUMNS = {
    ValueType.STRING: pa.array(["a", "", "é" * 200, None]),
    ValueType.INT64: pa.array([0, 1, -1, 127, 128, 300, 2**63 - 1, -(2**63), None]),
    ValueType.BOOL: pa.array([True, False, None]),
    ValueType.DOUBLE: pa.array([0.0, -0.5, None, float("inf"), float("nan")]),
    ValueType.FLOAT: pa.array([0.1, 1.5, None], pa.float32()),
    ValueType.UNIX_TIMESTAMP: pa.array([MOMENT, datetime(1969, 1, 1, tzinfo=UTC), None], TIMESTAMP),
    ValueType.STRING_LIST: pa.array([["a", "b" * 300], [], None, ["", ""]]),
    ValueType.INT64_LIST: pa.array([[0, -1, 300], [], None, [5] * 200]),
    ValueType.DOUBLE_LIST: pa.array([[0.0, 1.5], [], None, [2.5] * 50]),
    ValueType.FLOAT_LIST: pa.array([[0.1], [], None, [2.5] * 50], pa.list_(pa.float32())),
}


@pytest.mark.parametrize("value_type", COLUMNS, ids=lambda kind: kind.name)
def test_values_have_the_bytes_and_the_texts_that_feast_gives_them(value_type: ValueType) -> None:
    column = COLUMNS[value_type]
    protos = python_values_to_proto_values(column.to_pylist(), value_type)
    expected = [proto.SerializeToString() for proto in protos]
    assert encode_values(column, value_type).to_pylist() == expected
    assert encode_values(column.slice(1), value_type).to_pylist() == expected[1:]
    assert encode_values(column.slice(0, 0), value_type).to_pylist() == []
    assert value_texts(column, value_type) == [extract_text_and_num(p, False)[0] for p in protos]


def test_every_type_that_a_view_has_is_covered() -> None:
    used = {field.dtype.to_value_type() for view in BATCH_VIEWS for field in view.features}
    assert used <= set(COLUMNS)


def test_keys_have_the_bytes_that_feast_gives_them() -> None:
    keys = ["u", "user-000000007", "ü", ""]
    expected = [
        serialize_entity_key(
            EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=key)])
        )
        for key in keys
    ]
    assert encode_keys("user_id", pa.array(keys)).to_pylist() == expected


@pytest.mark.parametrize(
    ("column", "value_type", "told"),
    [
        (pa.array([b"x"]), ValueType.BYTES, "features of type BYTES"),
        (pa.array([["a", None]]), ValueType.STRING_LIST, "1 list items of type string are null"),
    ],
)
def test_what_cannot_be_encoded_is_refused(column: Any, value_type: ValueType, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        encode_values(column, value_type)


def test_a_missing_number_within_a_list_is_no_number() -> None:
    found = encode_values(pa.array([[1.0, None]]), ValueType.DOUBLE_LIST)
    first, second = Value.FromString(found[0].as_py()).double_list_val.val
    assert first == 1.0
    assert second != second
