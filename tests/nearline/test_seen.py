from datetime import UTC, datetime

from nearline.intake.seen import SeenIds
from nearline.windows import HOUR

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_an_id_is_known_for_its_hours() -> None:
    seen = SeenIds(late_hours=2)
    for n in range(5):
        seen.add([f"a{n}", "again" if n in (0, 3) else f"b{n}"], T0 + n * HOUR)
    at = T0 + 4 * HOUR
    assert seen.known([f"a{n}" for n in range(6)], at) == {"a2", "a3", "a4"}
    again = [seen.known(["again"], T0 + n * HOUR) for n in (4, 5, 6)]
    assert again == [{"again"}, {"again"}, set()]


def test_hours_may_come_in_any_order() -> None:
    seen = SeenIds(late_hours=2)
    for hours, name in ((1, "next"), (0, "now"), (1, "then")):
        seen.add([name], T0 + hours * HOUR)
    names = ["next", "now", "then"]
    assert seen.known(names, T0 + 2 * HOUR) == {"next", "now", "then"}
    assert seen.known(names, T0 + 3 * HOUR) == {"next", "then"}


def test_what_nobody_was_answered_for_is_forgotten() -> None:
    seen = SeenIds(late_hours=2)
    seen.add(["a", "b"], T0)
    seen.add(["c", "d"], T0 + HOUR)
    seen.forget(["a", "c", "nobody"])
    assert seen.known(list("abcd"), T0 + HOUR) == {"b", "d"}


def test_ids_of_older_hours_take_twelve_bytes_each() -> None:
    seen = SeenIds(late_hours=48)
    for n in range(3):
        seen.add([f"{n}-{k}" for k in range(1000)], T0 + n * HOUR)
    seen.add([], T0 + 3 * HOUR)
    ids = [f"{n}-{k}" for n in range(3) for k in range(1000)]
    assert seen.known(ids, T0 + 3 * HOUR) == set(ids)
    arrays = (part for part in vars(seen).values() if hasattr(part, "nbytes"))
    assert sum(part.nbytes for part in arrays) == 3 * 1000 * 12
