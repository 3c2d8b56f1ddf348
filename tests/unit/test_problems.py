"""Problem documents (RFC 9457)."""

from __future__ import annotations

import json

from agent.daemon.problems import problem_of
from agent.errors import DicomError, RequestRefused
from enroll.errors import ScansealError, StateError


def test_a_problem_says_what_happened_and_what_to_do() -> None:
    status, document = problem_of(RequestRefused("It is late.", remedy="Come earlier.", code="request-timeout"))

    assert status == 408
    assert json.loads(document) == {
        "type": "urn:scanseal:problem:request-timeout",
        "title": "The request arrived too slowly",
        "status": 408,
        "detail": "It is late.",
        "code": "request-timeout",
        "remedy": "Come earlier.",
    }


def test_every_fault_of_an_instance_is_422_with_its_own_code() -> None:
    status, document = problem_of(DicomError("It ends.", code="truncated"))

    assert status == 422
    assert json.loads(document)["code"] == "truncated"


def test_a_code_that_is_not_in_the_contract_is_a_defect() -> None:
    assert problem_of(ScansealError("What?", code="never-heard-of"))[0] == 500
    assert problem_of(StateError("What?"))[0] == 500
