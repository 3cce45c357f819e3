"""The registry is as large after a year of hours as after a day."""

from datetime import UTC, datetime, timedelta

from feast.protos.feast.core.FeatureView_pb2 import FeatureViewMeta

from feature_repo.registry_store import merge_intervals
from nearline.windows import HOUR

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def merged(*intervals: tuple[datetime, datetime]) -> list[tuple[datetime, datetime]]:
    meta = FeatureViewMeta()
    for start, end in intervals:
        meta.materialization_intervals.add(start_time=start, end_time=end)
    merge_intervals(meta.materialization_intervals)
    return [
        (i.start_time.ToDatetime(UTC), i.end_time.ToDatetime(UTC))
        for i in meta.materialization_intervals
    ]


def test_hours_side_by_side_and_hours_that_overlap_become_one_interval() -> None:
    hours = [(T0 + n * HOUR + MICROSECOND, T0 + (n + 1) * HOUR) for n in (2, 0, 1, 1)]
    assert merged(*hours) == [(T0 + MICROSECOND, T0 + 3 * HOUR)]
    within = (T0 + HOUR, T0 + HOUR + MICROSECOND)
    assert merged(hours[0], hours[2], within, (T0, T0 + 5 * HOUR)) == [(T0, T0 + 5 * HOUR)]


def test_hours_apart_stay_apart_and_the_newest_are_kept() -> None:
    nights = [(T0 + n * 24 * HOUR, T0 + n * 24 * HOUR + HOUR) for n in range(365)]
    assert merged(*nights[:3]) == nights[:3]
    assert merged(*nights) == nights[-100:]
    assert merged() == []
