"""Requests made from /openapi.json, right and wrong: no failure, and answers as it says."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import difftool
from difftool.serve import Application, ServeSettings, kserve
from tests.reliability.criteria import Cases

schemathesis = pytest.importorskip("schemathesis")

from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

COUNT: Final = {False: 50, True: 1800}  # of each way to draw, right and wrong ones each
ACCEPTS: Final = ("*/*", "application/octet-stream")
CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
LIMITS: Final = ServeSettings(max_n=2, max_steps=20, max_work=10**6)
# What random values hardly ever get right, so that nothing would be drawn.
HARD: Final = (
    *("sampler_arguments", "labels", "guidance_scale", "size", "partial_images", "previews"),
    *("init", "strength", "known", "mask"),
)
HARD_HEADERS: Final = (kserve.HEADER, "content-encoding")


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


def tame(case: Any, how: int) -> None:
    """Leave out more or less of a request that is right by its description alone."""
    for name in HARD_HEADERS if how else ():
        (case.headers or {}).pop(name, None)
    if how and isinstance(case.body, dict):
        if "/v1/" in case.operation.path and not case.body.get("model"):
            case.body["model"] = "small"
        for fields in (case.body, case.body.get("parameters")):
            for name in HARD:
                (fields or {}).pop(name, None)
        if how > 1:
            case.body.pop("inputs", None)


def fuzz(application: Application, count: int, only: str = "") -> Counter[str]:
    """Ask for everything that is described, or one path; return how often each status came."""
    described = schemathesis.openapi.from_asgi("/openapi.json", application)
    seen = Counter[str]()

    def run(operation: Any, mode: GenerationMode, count: int) -> None:
        @settings(
            max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(
            operation.as_strategy(generation_mode=mode),
            st.sampled_from(ACCEPTS),
            st.sampled_from(range(3)),
        )
        def check(case: Any, accept: str, how: int) -> None:
            if mode.is_positive:
                tame(case, how)
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
def test_a_body_that_is_trusted_is_seen(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(body: bytes, encoding: str, limit: int) -> bytes:
        return zlib.decompress(body, 47) if encoding in ("gzip", "deflate") else body

    monkeypatch.setattr(kserve, "unpacked", trusting)
    with pytest.raises(AssertionError, match="the server failed"):
        fuzz(application, COUNT[False], "infer")


@pytest.mark.seeded("S8")
def test_an_answer_that_is_not_described_is_seen(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kserve, "metadata", lambda name, shape: {"name": name, "more": 1})
    with pytest.raises(BaseException, match="schema"):
        fuzz(application, 1, "/v2/models/{name}")
