from pathlib import Path

import pytest

from nearline.errors import BadInput
from nearline.sources.movielens import read_movielens

LAYOUTS = {
    "ml-100k": {
        "u.data": "1\t10\t4\t881250949\n2\t11\t3\t881250950\n",
        "u.genre": "Drama|0\nComedy|1\n",
        "u.item": "10|Heat (1995)|01-Jan-1995||url|1|0\n11|Amélie|01-Jan-2001||url|0|1\n",
    },
    "ml-1m": {
        "ratings.dat": "1::10::4::881250949\n2::11::3::881250950\n",
        "movies.dat": "10::Heat (1995)::Drama\n11::Amélie::Comedy\n",
    },
    "ml-latest": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,881250949\n2,11,3,881250950\n",
        "movies.csv": 'movieId,title,genres\n10,"Heat (1995)",Drama\n11,Amélie,Comedy\n',
    },
    "recbole": {
        "ml-100k.inter": "u\ti\tr\tt\n1\t10\t4\t881250949\n2\t11\t3\t881250950\n",
        "ml-100k.item": "i\tt\ty\tc\n10\tHeat\t1995\tDrama\n11\tAmélie\t\tComedy\n",
    },
}
ENCODING = {"ml-100k": "latin-1", "ml-1m": "latin-1"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_events_and_films(layout: str, tmp_path: Path) -> None:
    for name, text in LAYOUTS[layout].items():
        (tmp_path / name).write_text(text, encoding=ENCODING.get(layout, "utf-8"))
    data = read_movielens(tmp_path)
    events = data.events.to_pydict()
    assert events["event_id"] == ["ml-1-10-881250949", "ml-2-11-881250950"]
    assert events["event_ts"][0] == "1997-12-04T15:55:49.000000+00:00"
    assert events["value"] == ["4.0", "3.0"]
    assert data.items["title"].to_pylist() == ["Heat (1995)", "Amélie"]
    assert data.items["categories"].to_pylist() == [["Drama"], ["Comedy"]]
    assert [t.year for t in data.items["created_ts"].to_pylist()] == [1995, 1900]


def test_a_folder_without_movielens_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected ml-100k"):
        read_movielens(tmp_path)


def test_a_file_with_wrong_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("a,b\nx,y\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,A,B\n")
    with pytest.raises(BadInput, match=r"ratings\.csv"):
        read_movielens(tmp_path)
