"""Transactions of Airflow's command on SQLite wait for their turn, and are not refused midway."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text

from pipeline.airflow_turns import take_turns

READ, WRITE = text("SELECT * FROM run"), text("INSERT INTO run VALUES (1)")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database as Airflow has it: readers do not wait for a writer."""
    path = tmp_path / "airflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE run (id INTEGER)")
    return path


def write_beside(database: Path) -> bool:
    """Whether another process could write now."""
    with sqlite3.connect(database, timeout=0) as other:
        try:
            other.execute("INSERT INTO run VALUES (2)")
        except sqlite3.OperationalError:
            return False
    return True


def read_then_write(connection: Connection, database: Path) -> bool:
    """A transaction that reads and writes; whether another one wrote in between."""
    result = connection.execution_options(stream_results=True).execute(READ)
    beside = write_beside(database)
    connection.execute(WRITE)
    result.close()
    return beside


def test_nobody_writes_between_the_read_and_the_write(database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}")
    take_turns(engine)
    with engine.begin() as connection:
        assert not read_then_write(connection, database)
    assert write_beside(database), "its turn came once the transaction ended"
    with engine.connect() as connection:
        assert sorted(connection.execute(READ).scalars()) == [1, 2]


def test_without_turns_somebody_does(database: Path) -> None:
    with create_engine(f"sqlite:///{database}").begin() as connection:
        assert read_then_write(connection, database)
