"""The short form of the run that makes requests from the API's own document, and whether it would notice anything."""

from pathlib import Path

import pytest

from benchmarks.api_fuzz import Fuzzing, fuzz_service, render


@pytest.mark.server
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to find processes in (Linux has it)")
def test_every_answer_keeps_to_the_document(tmp_path: Path) -> None:
    found = fuzz_service(tmp_path, examples=5)
    assert found.faults == [], render(found)
    assert found.requests > 300


def recorded(status: int, verdict: str) -> dict:
    return {
        "label": "GET /health",
        "cases": {"a": {"value": {"method": "GET", "path": "/health"}}},
        "interactions": {"a": {"request": {"uri": "http://here/health"}, "response": {"status_code": status}}},
        "checks": {"a": [{"name": "status_code_conformance", "status": verdict}]},
    }


def test_a_check_that_did_not_succeed_is_a_fault() -> None:
    found = Fuzzing()
    found.add(recorded(200, "success"))
    assert (found.requests, found.faults) == (1, [])
    found.add(recorded(418, "failure"))
    assert [fault[:2] for fault in found.faults] == [("GET /health", "status_code_conformance")]
    assert "| `GET /health` | 2 | 200: 1, 418: 1 | 1 |" in render(found)


def test_a_request_without_an_answer_is_a_fault() -> None:
    found = Fuzzing()
    found.add({**recorded(200, "success"), "interactions": {"a": {"request": {"uri": "u"}, "response": None}}})
    assert found.faults == [("GET /health", "no answer", "u")]
