"""Requests made from /openapi.json, right and wrong: no failure, and answers as it says."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import difftool
from difftool.serve import Application, ServeSettings, kserve
from tests.reliability.criteria import Cases

schemathesis = pytest.importorskip("schemathesis")

from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

COUNT: Final = {False: 60, True: 1800}  # of each way to draw, right and wrong ones each
ACCEPTS: Final = ("*/*", "application/octet-stream")
CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
LIMITS: Final = ServeSettings(max_n=2, max_steps=4, max_work=10**6)


@pytest.fixture
def application(tiny_bundle: Path) -> Iterator[Application]:
    kept = Path(__file__).parents[1] / "kept" / "bundle"  # points, with classes and guidance
    models = {
        name: difftool.load(path, max_batch=2, threads=1)
        for name, path in (("small", tiny_bundle), ("points", kept))
    }
    found = Application(models, LIMITS)
    yield found
    found.service.close()


def require_meant(answer: Any) -> None:
    """Fail if an answer is a server's error that its request did not ask for."""
    sent = answer.request.body or b""
    hurried = "deadline" in (sent if isinstance(sent, str) else sent.decode("latin-1"))
    allowed = (504,) if hurried else ()
    assert answer.status_code < 500 or answer.status_code in allowed, answer.text
    if answer.headers["content-type"][0].startswith("text/event-stream"):
        for line in answer.text.splitlines():
            error = json.loads(line[6:]).get("error") if line.startswith("data: ") else None
            assert error is None or (hurried and error["code"] == "deadline"), line


def fuzz(application: Application, count: int, only: str = "") -> Counter[str]:
    """Ask for everything that is described, or one path; return how often each status came."""
    described = schemathesis.openapi.from_asgi("/openapi.json", application)
    seen = Counter[str]()

    def run(operation: Any, mode: GenerationMode, count: int) -> None:
        @settings(
            max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(operation.as_strategy(generation_mode=mode), st.sampled_from(ACCEPTS))
        def check(case: Any, accept: str) -> None:
            answer = case.call(headers={"accept": accept})
            seen[f"{mode.value} {answer.status_code}"] += 1
            require_meant(answer)
            case.validate_response(answer, checks=CHECKS)

        check()

    for found in described.get_all_operations():
        operation = found.ok()
        if only not in operation.path:
            continue
        if operation.body:
            for mode in GenerationMode:
                run(operation, mode, count)
        else:
            run(operation, GenerationMode.POSITIVE, 10)
    for runner in application.service.runners.values():
        counts = runner.counts
        ended = counts.ok + counts.cancelled + counts.timeout + counts.failed
        assert (counts.pending, counts.failed, counts.accepted) == (0, 0, ended)
    return seen


@pytest.mark.criterion("S8")
def test_requests_as_described(
    application: Application, cases: Cases, note: Callable[[str], None], nightly: bool
) -> None:
    seen = fuzz(application, COUNT[nightly])
    cases.record("cases", seen.total())
    note(f"S8, answers to {seen.total()} requests: {dict(sorted(seen.items()))}")
    assert seen.total() >= {False: 300, True: 10_000}[nightly]
    assert {status.split()[1] for status in seen} >= {"200", "400", "422"}


@pytest.mark.seeded("S8")
def test_a_shape_that_is_trusted_is_seen(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(tensors: Any, behind: bytes) -> dict[str, Any]:
        return {each.name: np.reshape(each.data, each.shape).tolist() for each in tensors}

    monkeypatch.setattr(kserve, "values", trusting)
    with pytest.raises(AssertionError, match="the server failed"):
        fuzz(application, COUNT[False], "infer")


@pytest.mark.seeded("S8")
def test_an_answer_that_is_not_described_is_seen(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kserve, "metadata", lambda name, shape: {"name": name, "more": 1})
    with pytest.raises(BaseException, match="schema"):
        fuzz(application, 1, "/v2/models/{name}")
