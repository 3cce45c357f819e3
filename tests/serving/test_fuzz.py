"""What the API's own description allows, and what it forbids, asked at random but repeatably."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 15
"""Requests of each operation and mode."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
JUDGED_BY_ROWS = {"POST /v1/events", "PUT /v1/items"}
"""What is in these bodies is judged row by row, by the domain file too."""
LENIENT = {"POST /v1/recommendations", "POST /v1/sessions/recommendations"}
"""In these bodies what means the same is taken, as in a query: 0 for false, "10" for 10."""


ITEMS = ("i0", "i1", "i2", "a/b c%?#")


@pytest.fixture
def base_url(world: Any, listening: Any) -> Iterator[str]:
    world.catalogue(*({"item_id": item_id, "title": "One"} for item_id in ITEMS))
    world.promote(ITEMS)
    with listening(world.app()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def probe(operation: APIOperation, mode: GenerationMode, ask: Callable[[Case], None]) -> None:
    """Make up requests for an operation, the same ones in every run."""

    @hypothesis_settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Case) -> None:
        ask(case)

    each()


def has_a_range(case: Case) -> bool:
    """Whether prices are a range: the one rule over two fields, which no schema can tell."""
    given = case.body if isinstance(case.body, dict) else case.query or {}
    low, high = given.get("price_min"), given.get("price_max")
    return low is None or high is None or float(low) <= float(high)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_request_is_answered_as_the_description_says(
    base_url: str, session: requests.Session, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(session.get(f"{base_url}/openapi.json").json())
    strict = positive_data_acceptance if mode.is_positive else negative_data_rejection
    asked: set[str] = set()

    def ask(case: Case) -> None:
        asked.add(case.operation.label)
        if mode.is_positive:
            assume(has_a_range(case))
        loose = JUDGED_BY_ROWS if mode.is_positive else JUDGED_BY_ROWS | LENIENT
        checks = CHECKS if case.operation.label in loose else [*CHECKS, strict]
        case.call_and_validate(base_url=base_url, session=session, checks=checks)

    for found in schema.get_all_operations():
        operation = found.ok()
        described = schema.raw_schema["paths"][operation.path][operation.method]
        if mode.is_positive or {"parameters", "requestBody"} & set(described):
            probe(operation, mode, ask)
    assert len(asked) >= 10
