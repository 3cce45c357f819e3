"""Who gets which arm, and what a file of experiments may say."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from nearline.errors import ConfigError
from nearline.experiments import Assigned, Experiments

TWO = "{control: {share: 0.7}, wide: {share: 0.3, settings: {category_cap: 0.9}}}"
Read = Callable[[str], Experiments]
USERS = [f"u{n}" for n in range(20_000)]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def experiments(text: str) -> Experiments:
        file = tmp_path / "experiments.yaml"
        file.write_text(text)
        return Experiments.parse(file.read_text(), file)

    return experiments


def arms(experiments: Experiments, surface: str = "home") -> list[str | None]:
    found = (experiments.assigned(user, surface) for user in USERS)
    return [each.arm if each else None for each in found]


def test_users_are_dealt_out_by_the_shares_and_stay_where_they_are(read: Read) -> None:
    found = arms(read(f"cap: {{arms: {TWO}}}"))
    assert Counter(found)["wide"] / len(USERS) == pytest.approx(0.3, abs=0.01)
    assert arms(read(f"cap: {{arms: {TWO}, surfaces: [home]}}")) == found


def test_another_salt_deals_anew_and_independently(read: Read) -> None:
    first, second = (arms(read(f"cap: {{arms: {TWO}, salt: {salt}}}")) for salt in ("a", "b"))
    both = Counter(zip(first, second, strict=True))["wide", "wide"]
    assert both / len(USERS) == pytest.approx(0.09, abs=0.01)


def test_the_arm_of_a_user_never_changes_with_the_code(read: Read) -> None:
    assert arms(read(f"cap: {{arms: {TWO}}}"))[:10] == [
        "wide" if n in (1, 4, 9) else "control" for n in range(10)
    ]


def test_an_experiment_covers_its_surfaces_alone(read: Read) -> None:
    experiments = read(
        f"a: {{arms: {TWO}, surfaces: [home, item]}}\nb: {{arms: {TWO}, surfaces: [x]}}"
    )
    covering = [experiments.assigned("u1", place) for place in ("home", "item", "x", "y", None)]
    assert [each and each.experiment for each in covering] == ["a", "a", "b", None, None]
    assert experiments.arm(Assigned("a", "wide")).settings.category_cap == 0.9


def test_without_a_file_there_are_none(home: Path) -> None:
    experiments = Experiments.open()
    assert (experiments.assigned("u1", None), experiments.releases) == (None, frozenset())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cap: {arms: {control: {share: 0.5}, wide: {share: 0.4}}}", "add up to 1, not 0.9"),
        ("cap: {arms: {a: {share: 0.5}, b: {share: 0.5}}}", "one must be called 'control'"),
        (
            "cap: {arms: {control: {share: 1, colour: red}}}",
            r"cap.arms.control.colour: is not known",
        ),
        ("cap: {arms: {control: {share: 1, settings: {category_cap: 2}}}}", "category_cap"),
        ("cap: {arms: {control: {share: 1, release: ../x}}}", "release"),
        ("'a b': {arms: {control: {share: 1}}}", "a b.* must be up to 64 letters"),
        (f"a: {{arms: {TWO}}}\nb: {{arms: {TWO}, surfaces: [x]}}", "the same surface"),
        (
            f"a: {{arms: {TWO}, surfaces: [x]}}\nb: {{arms: {TWO}, surfaces: [x]}}",
            "the same surface",
        ),
        ("a: [", "experiments.yaml"),
        ("[a]", "experiments.yaml"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(read: Read, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        read(text)
    assert "validation error" not in str(caught.value)
    assert "https://" not in str(caught.value)
