"""How far each dataset is: newest complete hour, age, gaps."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from nearline.lake import Lake
from nearline.windows import Window


@dataclass(frozen=True)
class DatasetStatus:
    """`complete_until` is the end of the newest finished hour; `age` is measured from it."""

    dataset: str
    complete_from: datetime
    complete_until: datetime
    age: timedelta
    gaps: list[Window]
    rows: int


def dataset_status(lake: Lake, *, now: datetime) -> list[DatasetStatus]:
    """The state of every dataset that has finished at least one window."""
    return [_status(lake, dataset, now) for dataset in lake.datasets()]


def _status(lake: Lake, dataset: str, now: datetime) -> DatasetStatus:
    covered = lake.covered(dataset)
    return DatasetStatus(
        dataset=dataset,
        complete_from=covered[0].start,
        complete_until=covered[-1].end,
        age=max(now - covered[-1].end, timedelta()),
        gaps=lake.ledger(dataset).gaps(),
        rows=lake.ledger(dataset).rows(),
    )
