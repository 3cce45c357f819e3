"""Airflow's own command, for what writes much beside a running scheduler on SQLite.

A transaction of Airflow reads before it writes. Where another process wrote in between, SQLite
refuses the write at once ("database is locked"), however long one would wait: `backfill create` of
a few days meets the scheduler nearly always. So each transaction of this command takes the right to
write as it begins, and waits for it; between two of them the scheduler has its turn.
"""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, event

_PATIENCE_MS = 60_000


def take_turns(engines: Any = Engine) -> None:
    """Make transactions on SQLite, of one engine or of all, begin by taking the right to write."""

    @event.listens_for(engines, "connect")
    def wait(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None  # or the driver begins by itself, and later
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")

    @event.listens_for(engines, "begin")
    def begin(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


if __name__ == "__main__":
    take_turns()
    from airflow.__main__ import main

    main()
