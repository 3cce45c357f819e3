import numpy as np
import pytest

from nearline.errors import BadInput
from training.baselines import DAY_US
from training.replay.clocks import Clock, clocks_of, encoded_at, parse_policies
from training.replay.timeline import HOUR_US

START = 10 * DAY_US + 22 * HOUR_US


def ticks(name: str, *, days: float) -> list[float]:
    clock = Clock.parse(name, step="hour")
    return ((clock.ticks(START, int(START + days * DAY_US)) - START) / HOUR_US).tolist()


def test_clocks_tick_at_whole_hours_and_midnights() -> None:
    assert ticks("never", days=9) == []
    assert ticks("nightly", days=3) == [2, 26, 50]
    assert ticks("weekly", days=9) == [2, 170]
    assert ticks("hourly", days=0.25) == ticks("hourly-plain", days=0.25) == [1, 2, 3, 4, 5]
    assert ticks("daily-replay", days=2) == [2, 26]
    assert ticks("weekly+daily-distil", days=8) == [2, 26, 50, 74, 98, 122, 146, 170]


def test_a_tick_of_both_clocks_is_a_night() -> None:
    clock = Clock.parse("weekly+daily-distil", step="hour")
    moments = [START + hours * HOUR_US for hours in (2, 26, 170)]
    assert [clock.retrains(moment, START) for moment in moments] == [True, False, True]
    assert not Clock.parse("replay", step="hour").retrains(moments[0], START)
    assert Clock.parse("hourly", step="hour").retrains(START + HOUR_US, START)


def test_names_are_read_and_written_again() -> None:
    text = "frozen/never, live/replay, live/weekly+hourly-plain/compressed, popular_7d, live/never"
    by_hour, by_day = (parse_policies(text, step=step) for step in ("hour", "day"))
    assert [policy.name for policy in by_hour] == [
        "frozen/never",
        "live/hourly-replay",
        "live/weekly+hourly-plain/compressed",
        "popular_7d",
        "live/never",
    ]
    assert by_day[1].name == "live/daily-replay"
    assert by_day[1].clock.tuned == by_day[3].clock.tuned == DAY_US
    assert len(parse_policies("live/never,live/never/full", step="hour")) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no policy is named"),
        ("live", "no policy 'live'"),
        ("asleep/never", "no policy 'asleep/never'"),
        ("live/never/half", "no policy 'live/never/half'"),
        ("live/yearly", "no model clock 'yearly'"),
        ("live/plain-hourly", "no model clock 'plain-hourly'"),
        ("live/never+replay", "no model clock"),
    ],
)
def test_what_is_no_policy_is_named(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse_policies(text, step="hour")


def test_policies_of_one_model_clock_are_played_together_and_the_cheap_first() -> None:
    text = "live/nightly,live/never,frozen/never,live/hourly-plain"
    found = clocks_of(parse_policies(text, step="hour"))
    assert [clock.name for clock in found] == ["never", "hourly-plain", "nightly"]
    assert next(iter(found.values())) == [("live", "full"), ("frozen", "full")]


def test_a_state_is_as_old_as_its_clock_lets_it_be() -> None:
    times = START + np.array([0.5, 1.25, 2.5]).astype(np.float64) * HOUR_US
    times = times.astype(np.int64)
    expected = {"frozen": [0, 0, 0], "nightly": [0, 0, 2], "hourly": [0, 1, 2]}
    for state, hours in expected.items():
        found = (encoded_at(state, times, START) - START) / HOUR_US
        assert found.tolist() == hours, state
    assert encoded_at("live", times, START).tolist() == times.tolist()
