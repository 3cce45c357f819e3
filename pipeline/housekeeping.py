"""What keeps an installation small, and its word: what is old is removed, and users are forgotten.

Nobody may write the same data meanwhile: `tidy_lake` belongs where the lake is written, and
`tidy_online`, after it, where the online store is. Both may be killed and run again.
"""

from collections.abc import Iterable
from datetime import date, datetime

from nearline.experiments import Experiments
from nearline.lake import Lake
from nearline.ledger import Ledger
from nearline.locks import alone
from nearline.releases import ReleaseStore
from nearline.settings import settings
from nearline.windows import HOUR, Window, hour_floor, midnight
from pipeline.forget import remove_from_lake, remove_online
from pipeline.retention import expire, expire_online

ONLINE = "online/"
"""Datasets of the ledger that stand for the online store: there are no files of theirs."""


@alone("lake")
def tidy_lake(window: Window) -> dict[str, int]:
    """Bring the lake, the releases and the journals in order, as of the window's end.

    Users who asked to be forgotten are removed first. A day is compacted once late events can no
    longer change it. Returns how many users, journals, days, hour files, ledger entries and
    releases went.
    """
    from nearline.intake import prune_journals

    lake, settled, used = Lake.open(), settled_until(window), Experiments.open().releases
    names = [name for name in lake.datasets() if not name.startswith(ONLINE)]
    return {
        "forgotten": remove_from_lake(),
        "journals": prune_journals(hour_floor(window.end) - settings().late_hours * HOUR),
        "expired_days": expire(lake, window),
        "compacted_files": sum(compact(lake, name, settled) for name in names),
        "ledger_entries": settle(lake, names, settled),
        "releases": len(ReleaseStore.open().prune(keep=settings().keep_releases, used=used)),
    }


@alone("online")
def tidy_online(window: Window) -> dict[str, int]:
    """Bring the online store and its ledger in order.

    A user whom `tidy_lake` removed is removed from the store; that ends the request. Rows of users
    go that are older than events are kept. Returns how many users, rows and ledger entries went.
    """
    lake = Lake.open()
    names = [name for name in lake.datasets() if name.startswith(ONLINE)]
    return {
        "forgotten": len(remove_online()),
        "expired_rows": expire_online(window),
        "ledger_entries": settle(lake, names, settled_until(window)),
    }


def settled_until(window: Window) -> datetime:
    """The midnight before which late events change nothing any more."""
    return midnight((window.end - settings().late_hours * HOUR).date())


def compact(lake: Lake, dataset: str, until: datetime) -> int:
    """Compact the days that were written since the last time; returns the files that went.

    The ledger tells them: what was finished since then is not settled yet.
    """
    return sum(lake.compact_day(dataset, day) for day in _days(lake.ledger(dataset), until))


def _days(ledger: Ledger, until: datetime) -> Iterable[date]:
    finished = ledger.unsettled(until)
    return sorted({day for a in finished for day in Window(a.since, a.window.end).days()})


def settle(lake: Lake, datasets: Iterable[str], until: datetime) -> int:
    """Put old entries of the ledger together; returns how many went."""
    return sum(lake.ledger(dataset).settle(until) for dataset in datasets)
