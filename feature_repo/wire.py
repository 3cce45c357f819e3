"""Feast's own encoding of keys and values, made a column at a time.

Feast builds a protobuf object for each value of each row. Here the same bytes are laid out for a
whole Arrow column at once: tags, lengths and values are binary arrays that are joined element by
element. The format: https://protobuf.dev/programming-guides/encoding/.
"""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.protos.feast.types.Value_pb2 import Value
from feast.protos.feast.types.Value_pb2 import ValueType as ProtoType
from feast.value_type import ValueType

from nearline.errors import BadInput
from nearline.schema import TIMESTAMP

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ELEMENTS = {
    "string": (pa.string(), _BYTES),
    "int64": (pa.int64(), _VARINT),
    "bool": (pa.bool_(), _VARINT),
    "unix_timestamp": (TIMESTAMP, _VARINT),
    "double": (pa.float64(), _FIXED64),
    "float": (pa.float32(), _FIXED32),
}
_LIST = "_list"
_LIST_ITEM = 1
"""The one field of Feast's list messages."""
_NOTHING = pa.scalar(b"", pa.binary())


def encode_keys(name: str, keys: pa.Array) -> pa.Array:
    """The entity key of each value of one join key of type string, as Feast serializes it (v3)."""
    values = keys.cast(pa.string()).cast(pa.binary())
    prefix = serialize_entity_key_prefix([name]) + struct.pack("<I", ProtoType.STRING)
    lengths = pc.binary_length(values).to_numpy().astype("<u4")
    return _join(prefix, _fixed(lengths), values)


def encode_values(column: pa.Array, value_type: ValueType) -> pa.Array:
    """Each value as a serialized `Value` message; nothing at all for null, as Feast writes it.

    Raises BadInput for a type that no view has needed yet, and for null within a list of no floats.
    """
    name = value_type.name.lower()
    element = name.removesuffix(_LIST)
    if element not in _ELEMENTS:
        known = ", ".join(_ELEMENTS)
        raise BadInput(f"no encoding for features of type {value_type.name}: use {known} or lists")
    arrow_type, wire = _ELEMENTS[element]
    number = Value.DESCRIPTOR.fields_by_name[f"{name}_val"].number
    if name.endswith(_LIST):
        column = column.cast(pa.list_(arrow_type))
        encoded = _field(number, _BYTES, _list_message(column, wire))
        missing = column.is_null()
    else:
        column = column.cast(arrow_type)
        encoded = _field(number, wire, _elements(column, wire))
        missing = column.is_null(nan_is_null=True)
    return pc.if_else(missing, _NOTHING, encoded)


def value_texts(column: pa.Array, value_type: ValueType) -> list[str | None]:
    """What Feast's SQLite store writes beside a value, for searching: text of scalars, or None."""
    if value_type == ValueType.STRING:
        return list(column.to_pylist())
    if value_type in (ValueType.INT64, ValueType.DOUBLE, ValueType.FLOAT, ValueType.BOOL):
        return [None if v is None or v != v else str(v) for v in column.to_pylist()]
    return [None] * len(column)


def _list_message(column: pa.Array, wire: int) -> pa.Array:
    """Each list as a message with one repeated field; numbers are packed."""
    items = column.values
    if items.null_count and wire not in (_FIXED64, _FIXED32):
        raise BadInput(f"{items.null_count} list items of type {items.type} are null")
    elements, offsets = _elements(items, wire), column.offsets.to_numpy()
    if wire == _BYTES:
        return _runs(_field(_LIST_ITEM, _BYTES, elements), offsets)
    packed = _runs(elements, offsets)
    empty = pc.equal(pc.binary_length(packed), 0)
    return pc.if_else(empty, _NOTHING, _field(_LIST_ITEM, _BYTES, packed))


def _elements(values: pa.Array, wire: int) -> pa.Array:
    """The bytes of each value, without a tag."""
    if wire == _BYTES:
        return values.fill_null("").cast(pa.binary())
    if wire == _VARINT:
        if pa.types.is_timestamp(values.type):
            values = pc.floor_temporal(values, unit="second").cast(pa.timestamp("s", "UTC"))
        return _varints(values.cast(pa.int64()).fill_null(0).to_numpy())
    return _fixed(values.fill_null(float("nan")).to_numpy())


def _field(number: int, wire: int, elements: pa.Array) -> pa.Array:
    """A message's field: the tag, the length where the wire type has one, the bytes."""
    tag = _varints(np.array([number << 3 | wire]))[0].as_py()
    if wire == _BYTES:
        lengths = pc.binary_length(elements).to_numpy(zero_copy_only=False)
        return _join(tag, _varints(lengths), elements)
    return _join(tag, elements)


def _varints(values: np.ndarray) -> pa.Array:
    """Integers in groups of 7 bits, lowest first; every byte but the last has its high bit set."""
    left = values.astype(np.int64).view(np.uint64)
    sizes = np.ones(len(left), dtype=np.int32)
    octets = []
    while True:
        octets.append((left & np.uint64(0x7F)).astype(np.uint8))
        left = left >> np.uint64(7)
        more = left != 0
        if not more.any():
            break
        octets[-1] |= more.astype(np.uint8) << 7
        sizes += more
    written = np.arange(len(octets)) < sizes[:, None]
    data = np.stack(octets, axis=1)[written]
    return _binary(np.concatenate(([0], np.cumsum(sizes))), pa.py_buffer(data))


def _fixed(values: np.ndarray) -> pa.Array:
    offsets = np.arange(len(values) + 1) * values.itemsize
    return _binary(offsets, pa.py_buffer(np.ascontiguousarray(values)))


def _runs(elements: pa.Array, offsets: np.ndarray) -> pa.Array:
    """Neighbouring elements as one: those of row r lie in `[offsets[r], offsets[r + 1])`."""
    _, starts, data = elements.buffers()
    ends = np.frombuffer(starts, dtype=np.int32)[elements.offset :]
    return _binary(ends[offsets], data)


def _binary(offsets: np.ndarray, data: pa.Buffer) -> pa.Array:
    starts = pa.py_buffer(offsets.astype(np.int32))
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, [None, starts, data])


def _join(first: bytes, *rest: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(first, pa.binary()), *rest, _NOTHING)
