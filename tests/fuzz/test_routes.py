"""Whatever is sent to any route of ours: an answer that the description knows, never a fault of the server."""

import os
from typing import Any

import hypothesis
import pytest

from tests.fuzz.conftest import bounded

EXAMPLES = int(os.environ.get("DARKROOM_FUZZ_EXAMPLES", "2"))
MANY = 120


def ask_all(app: Any, examples: int, seed: int) -> int:
    """So many requests to each operation that is described; how many there were."""
    import schemathesis  # takes seconds, which each process would take that collects tests
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

    checks, asked = [not_a_server_error, status_code_conformance, content_type_conformance], 0
    described = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    limits = hypothesis.settings(max_examples=examples, database=None)
    for found in described.get_all_operations():

        @limits
        @hypothesis.seed(seed)
        @hypothesis.given(found.ok().as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            with bounded(f"{case.method} {case.path}"):
                case.call_and_validate(checks=checks)

        ask()
    return asked


def test_no_request_is_a_fault_of_the_server(app: Any, keeps_memory: None) -> None:
    assert ask_all(app, EXAMPLES, seed=25) > 40


@pytest.mark.slow
def test_no_request_of_thousands_is_a_fault_of_the_server(app: Any, keeps_memory: None) -> None:
    assert ask_all(app, MANY, seed=1) > 2500
