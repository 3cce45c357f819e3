"""What models find wrong, told without the words of the library that found it."""

import pytest
from pydantic import TypeAdapter, ValidationError

from nearline.experiments import Experiment
from nearline.faults import one_line
from nearline.records import Event, Id


@pytest.mark.parametrize(
    ("shape", "given", "told"),
    [
        (dict[Id, Experiment], {"a": {"arms": {}}}, "a: arms: one must be called 'control'"),
        (dict[Id, Experiment], [], "Input should be a valid dictionary"),
        (Id, "a\n", "must be a text of 1 to 256 characters, none of control"),
        (Id, "", "must be a text of 1 to 256 characters, none of control"),
        (list[Id], ["a", 5], "1: must be a text of 1 to 256 characters, none of control"),
        (
            Event,
            {},
            "event_id: Field required; user_id: Field required; event_type: Field required",
        ),
    ],
)
def test_a_fault_is_told_in_plain_words(shape: object, given: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(shape).validate_python(given)
    line = one_line(caught.value)
    assert line.startswith(told)
    assert "\n" not in line


def test_only_a_fault_of_the_whole_takes_its_name() -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate("text")
    assert one_line(caught.value, whole="event").startswith("event: Input should be")
