"""Rows of a feature view as the online stores keep them: key, time, and bytes of each feature."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress

import pyarrow as pa
from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import make_tzaware

from feature_repo.wire import encode_keys, encode_values, value_texts
from nearline.schema import FEATURE_TS

ProtoRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""A row as Feast hands it over: key, features, time, time of creation."""


@dataclass(frozen=True)
class EncodedRows:
    """Columns of equal length: entity keys, times (UTC), and for each feature values and texts.

    Texts are what Feast's SQLite store keeps beside values; no other store needs them.
    """

    keys: list[bytes]
    times: list[datetime]
    values: dict[str, list[bytes]]
    texts: dict[str, list[str | None]]

    @classmethod
    def of_batch(
        cls, view: FeatureView, batch: pa.RecordBatch, *, with_texts: bool
    ) -> "EncodedRows":
        """Rows that were read from the lake, one for each key."""
        [key] = view.join_keys
        types = {f.name: f.dtype.to_value_type() for f in view.features}
        return cls(
            encode_keys(key, batch[key]).to_pylist(),
            batch[FEATURE_TS].to_pylist(),
            {name: encode_values(batch[name], kind).to_pylist() for name, kind in types.items()},
            {name: value_texts(batch[name], kind) for name, kind in types.items() if with_texts},
        )

    @classmethod
    def of_protos(cls, view: FeatureView, rows: Sequence[ProtoRow]) -> "EncodedRows":
        """Rows from Feast: of each key the newest, of equal times the last."""
        newest: dict[bytes, ProtoRow] = {}
        for row in rows:
            key = serialize_entity_key(row[0])
            if key not in newest or make_tzaware(row[2]) >= make_tzaware(newest[key][2]):
                newest[key] = row
        columns = {f.name: [row[1][f.name] for row in newest.values()] for f in view.features}
        return cls(
            list(newest),
            [make_tzaware(row[2]) for row in newest.values()],
            {name: [v.SerializeToString() for v in found] for name, found in columns.items()},
            {
                name: [extract_text_and_num(v, False)[0] for v in found]
                for name, found in columns.items()
            },
        )

    def where(self, kept: Sequence[bool]) -> "EncodedRows":
        """The rows for which `kept` is true."""
        if all(kept):
            return self
        return EncodedRows(
            list(compress(self.keys, kept)),
            list(compress(self.times, kept)),
            {name: list(compress(column, kept)) for name, column in self.values.items()},
            {name: list(compress(column, kept)) for name, column in self.texts.items()},
        )
