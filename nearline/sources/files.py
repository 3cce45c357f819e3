"""Anyone's events and items: CSV, JSON lines or parquet, with a mapping of columns."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from nearline.errors import BadInput
from nearline.modalities import require_alike, widths_of
from nearline.schema import ITEM_SCHEMA, MODALITIES, RAW_SCHEMA
from nearline.sources.dataset import conform, iso_texts

TimeUnit = Literal["iso", "s", "ms", "us"]


def parse_mapping(pairs: list[str], allowed: list[str]) -> dict[str, str]:
    """`["user_id=uid"]` as {ours: theirs}. Raises BadInput on a name that is not ours."""
    mapping = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or ours not in allowed:
            raise BadInput(f"{pair!r} must be NAME=COLUMN, NAME one of {', '.join(allowed)}")
        mapping[ours] = theirs
    return mapping


def read_events(
    path: Path, *, mapping: Mapping[str, str], event_type: str | None, time_unit: TimeUnit
) -> pa.Table:
    """Events of a file as raw rows that arrived when they happened.

    `mapping` gives the file's name for a column of ours; `event_type` fills in where the file has
    none; an event without an id gets one from its content. A time that cannot be read stays as it
    is, arrives with the latest that can, and is refused with a reason when the hour is cleaned.
    Raises BadInput when the file or a needed column is missing.
    """
    frame = _read(path)
    found = _rename(frame, mapping, RAW_SCHEMA.names)
    if event_type is not None and "event_type" not in found:
        found["event_type"] = event_type
    _require(found, ["user_id", "event_type", "event_ts"], path, frame)
    times = _times(found["event_ts"], time_unit)
    if times.notna().sum() == 0:
        raise BadInput(f"{path}: no time in column event_ts can be read as {time_unit!r}")
    found["event_ts"] = iso_texts(times).where(times.notna(), _texts(found["event_ts"]))
    found["received_ts"] = times.fillna(times.max())
    rows = found.reindex(columns=RAW_SCHEMA.names)
    texts = rows.columns.drop("received_ts")
    rows[texts] = rows[texts].apply(_texts)
    rows["source"] = "load"
    if "event_id" not in found:
        rows["event_id"] = _content_ids(rows)
    return conform(rows, RAW_SCHEMA)


def read_items(path: Path, *, mapping: Mapping[str, str], option: str = "--mapping") -> pa.Table:
    """Items of a file; categories may be a list or a text separated by `|`, vectors a JSON text.

    An item needs no more than its id. `option` is what an error names for giving the `mapping`.
    Raises BadInput when the file or a needed column is missing, a value has the wrong type, or
    vectors of one kind differ in length.
    """
    frame = _read(path)
    found = _rename(frame, mapping, ITEM_SCHEMA.names)
    _require(found, ["item_id"], path, frame, option)
    found["item_id"] = _texts(found["item_id"])
    if "categories" in found:
        found["categories"] = found["categories"].map(_categories)
    if "available" not in found:
        found["available"] = True
    try:
        if "created_ts" in found:
            found["created_ts"] = _moments(found, "created_ts")
        for name in found.columns.intersection(list(MODALITIES)):
            found[name] = _vectors(found, name)
        items = conform(found, ITEM_SCHEMA)
        require_alike(items, widths_of(items))
    except (pa.ArrowInvalid, pa.ArrowTypeError, BadInput) as error:
        raise BadInput(f"{path}: {error}") from error
    return items


def _read(path: Path) -> pd.DataFrame:
    readers = {
        ".csv": lambda: pd.read_csv(path, dtype=str),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=False, convert_dates=False),
        ".parquet": lambda: pd.read_parquet(path),
    }
    if path.suffix not in readers:
        raise BadInput(f"{path}: expected one of {', '.join(readers)}")
    try:
        return readers[path.suffix]()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _rename(frame: pd.DataFrame, mapping: Mapping[str, str], names: list[str]) -> pd.DataFrame:
    """The file's columns under our names; columns we have no name for are left out."""
    theirs = {ours: mapping.get(ours, ours) for ours in names}
    missing = [f"{o}={t}" for o, t in mapping.items() if t not in frame.columns]
    if missing:
        raise BadInput(f"no such column for {', '.join(missing)}: found {', '.join(frame.columns)}")
    return pd.DataFrame({o: frame[t] for o, t in theirs.items() if t in frame.columns})


def _require(
    found: pd.DataFrame,
    needed: list[str],
    path: Path,
    frame: pd.DataFrame,
    option: str = "--mapping",
) -> None:
    missing = [name for name in needed if name not in found.columns]
    if missing:
        raise BadInput(
            f"{path} has no column {', '.join(missing)}; say which to take, as in "
            f"{option} {missing[0]}=COLUMN, from: {', '.join(map(str, frame.columns))}"
        )


def _times(column: pd.Series, unit: TimeUnit) -> pd.Series:
    if unit == "iso":
        return pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601").dt.as_unit("us")
    numbers = pd.to_numeric(column, errors="coerce")
    return pd.to_datetime(numbers, unit=unit, utc=True, errors="coerce").dt.as_unit("us")


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).map(str, na_action="ignore").where(column.notna(), None)


def _content_ids(rows: pd.DataFrame) -> pd.Series:
    hashes = pd.util.hash_pandas_object(rows.drop(columns=["event_id"]).astype(str), index=False)
    return hashes.map("{:016x}".format)


def _moments(found: pd.DataFrame, name: str) -> pd.Series:
    times = pd.to_datetime(found[name], utc=True, errors="coerce", format="ISO8601")
    unread = np.flatnonzero(times.isna() & found[name].notna()).tolist()
    if unread:
        raise _unreadable(found, name, unread[0], "no ISO 8601 time")
    return times


def _vectors(found: pd.DataFrame, name: str) -> list[np.ndarray | None]:
    vectors: list[np.ndarray | None] = [None] * len(found)
    for row in np.flatnonzero(found[name].notna()).tolist():
        try:
            vectors[row] = _vector(found[name].iat[row])
        except (TypeError, ValueError) as error:
            raise _unreadable(found, name, row, "no list of numbers") from error
    return vectors


def _vector(value: object) -> np.ndarray:
    numbers = json.loads(value) if isinstance(value, str) else value
    vector = np.asarray(numbers, dtype=np.float32)
    if vector.ndim != 1:
        raise ValueError(f"{vector.ndim} dimensions")
    return vector


def _unreadable(found: pd.DataFrame, name: str, row: int, why: str) -> BadInput:
    """What to raise for a value of an item, by the place of its row."""
    item, value = found["item_id"].iat[row], str(found[name].iat[row])[:40]
    return BadInput(f"item {item!r}: {name} is {value!r}, {why}")


def _categories(value: object) -> list[str]:
    if isinstance(value, str):
        return [part for part in value.split("|") if part]
    return [str(part) for part in value] if hasattr(value, "__iter__") else []
