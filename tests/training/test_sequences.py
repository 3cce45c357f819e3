import lzma
from pathlib import Path

import pytest

from nearline.errors import BadInput
from nearline.sequence import Vocabulary
from nearline.words import bucket
from training.sequences import (
    as_interactions,
    attribute_ids,
    read_attributes,
    read_sequences,
    read_split_sequences,
    vocabulary_of,
)

VOCABULARY = Vocabulary(("10", "2", "9"), ("event",))


def write(folder: Path, content: str | bytes, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    text = b"7 2 9\r\n\n8\t10  2 2\n"
    content, name = (lzma.compress(text), "a.txt.xz") if packed else (text, "a.txt")
    path = write(tmp_path, content, name)
    assert read_sequences(path) == {"7": ["2", "9"], "8": ["10", "2", "2"]}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "a.txt", "a.txt is empty"),
        ("\n \n", "a.txt", "a.txt is empty"),
        ("1 2 3\n4\n", "a.txt", "line 2: user '4' has no items"),
        ("1 2 3\n2 1\n1 4\n", "a.txt", "line 3: user '1' has an earlier line"),
        (b"1 2 \xff\n", "a.txt", "is not UTF-8 text .'utf-8' codec"),
        ("1 2 3\n", "a.txt.xz", "is not UTF-8 text, packed as xz"),
        (lzma.compress(b"1 2 3\n" * 99)[:-9], "a.txt.xz", "is not UTF-8 text, packed as xz"),
    ],
)
def test_a_malformed_file_is_named(
    tmp_path: Path, content: str | bytes, name: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        read_sequences(write(tmp_path, content, name))


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_items_may_lie_in_a_file_of_their_own(tmp_path: Path, packed: bool) -> None:
    pack, end = (lzma.compress, ".xz") if packed else (bytes, "")
    histories = write(tmp_path, pack(b"5 3 3\n\n8\n"), f"histories.txt{end}")
    targets = write(tmp_path, pack(b"4\n\n5\n"), f"targets.txt{end}")
    assert read_split_sequences(histories, targets) == {"1": ["5", "3", "3", "4"], "3": ["8", "5"]}


@pytest.mark.parametrize(
    ("histories", "targets", "message"),
    [
        ("1 2\n3 4\n", "5\n", "line 2: '3 4' is followed by ''"),
        ("1 2\n", "5\n6\n", "line 2: '' is followed by '6'"),
        ("1 2\n", "5 6\n", "line 1: '1 2' is followed by '5 6'"),
        ("\n", "5\n", "a.txt is empty"),
    ],
)
def test_last_items_of_other_lines_are_refused(
    tmp_path: Path, histories: str, targets: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        read_split_sequences(write(tmp_path, histories, "a.txt"), write(tmp_path, targets, "b.txt"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*gone.txt: No such file"):
        read_sequences(tmp_path / "gone.txt")
    with pytest.raises(BadInput, match="cannot read"):
        read_sequences(tmp_path)


def test_attributes_are_numbers_or_texts(tmp_path: Path) -> None:
    path = write(tmp_path, lzma.compress(b'{"2": [1, "x"], "9": []}'), "a.json.xz")
    assert read_attributes(path) == {"2": ["1", "x"], "9": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "holds no JSON object"),
        ('{"2": 5}', "item '2' has 5;"),
        ('{"2": [1], "9": [[1]]}', r"item '9' has \[\[1\]\];"),
        ('{"2": [true]}', r"item '2' has \[true\];"),
    ],
)
def test_malformed_attributes_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_attributes(write(tmp_path, content))


def test_items_are_ordered_by_name_whoever_touched_them_first() -> None:
    assert vocabulary_of({"1": ["9", "2"], "2": ["10", "9"]}) == VOCABULARY
    assert vocabulary_of({"2": ["2", "10"], "1": ["9"]}) == VOCABULARY


def test_order_counts_and_gaps_tell_nothing() -> None:
    long = ["9", "2"] * 40
    data = as_interactions({"b": long, "a": ["10", "2", "10"]}, VOCABULARY)
    assert data.user_ids == ("a", "b")
    assert data.items.tolist() == [1, 2, 1] + [3, 2] * 40
    assert set(data.gaps.tolist()) == {1}
    assert set(data.types.tolist()) == {1}
    assert data.states[:6].tolist() == [-1, 0, 1, -1, 3, 4]


def test_attributes_become_content() -> None:
    content = attribute_ids({"2": ["4", "5"], "gone": ["6"]}, VOCABULARY, buckets=1000)
    anything, four, five = (bucket(f, 1000) for f in ("any", "category:4", "category:5"))
    assert [row[row > 0].tolist() for row in content] == [
        [anything],
        [anything, four, five],
        [anything],
    ]


def test_without_attributes_content_is_empty() -> None:
    assert attribute_ids(None, VOCABULARY, buckets=1000).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("attributes", [{}, {"gone": ["1"]}, {"2": []}])
def test_attributes_of_other_items_are_refused(attributes: dict[str, list[str]]) -> None:
    with pytest.raises(BadInput, match=r"is in the sequences \(which have '10', for one"):
        attribute_ids(attributes, VOCABULARY, buckets=1000)
