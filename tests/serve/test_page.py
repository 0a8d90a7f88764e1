"""The page's files come with their types, under a strict policy, and to everybody."""

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from difftool.diffusion import SAMPLERS
from difftool.runtime import Model
from difftool.serve import ServeSettings, page
from tests.serve.conftest import Client, Gate, client_of, error_of, run, wait_at

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
FOLDER = Path(page.__file__).parent / "page"
PATHS = ("/", *(f"/page/{name}" for name in page.FILES))
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class Parts(HTMLParser):
    """Collects the tags of a page with their attributes, and the text within scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.inline += data


@pytest.fixture
def locked(digits: Model) -> Client:
    return client_of(ServeSettings(keys=("a-key-for-the-tests",)), digits=digits)


@pytest.mark.parametrize("path", PATHS)
def test_a_file_of_the_page(locked: Client, path: str) -> None:
    answer = locked("GET", path)
    assert answer.status_code == 200
    kind = TYPES["html" if path == "/" else path.rpartition(".")[2]]
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    rules = [rule.partition(" ") for rule in answer.headers["content-security-policy"].split("; ")]
    assert {name: value for name, _, value in rules} == POLICY
    name = path.rpartition("/")[2] or "index.html"
    assert answer.content == (FOLDER / name).read_bytes() != b""
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}'):
        again = locked("GET", path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
    assert locked("GET", path, headers={"if-none-match": '"other"'}).status_code == 200
    assert locked("HEAD", path).status_code == 200


def test_nothing_of_it_is_inline_or_from_elsewhere(locked: Client) -> None:
    parts = Parts(locked("GET", "/").text)
    assert parts.inline.strip() == ""
    assert [tag for tag, _ in parts.tags if tag == "style"] == []
    for tag, attributes in parts.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href"):
            wanted = attributes.get(name)
            assert wanted in (None, "data:,") or f"/{wanted}" in PATHS, wanted
    for path in PATHS:
        text = locked("GET", path).text
        found = re.findall(r'(?:from|import) "([^"]+)"', text)
        assert all(f"/page/{name.removeprefix('./')}" in PATHS for name in found)
        addresses = {*re.findall(r"https?://[^\s\"']*", text)}
        assert addresses <= {"http://www.w3.org/2000/svg"}, path  # a name, which nobody fetches


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/index.html", "/page/..%2Fpage.py", "/page/%2E%2E/page.py"]
)
def test_nothing_else_lies_there(locked: Client, path: str) -> None:
    answer = locked("GET", path, headers={"authorization": "Bearer a-key-for-the-tests"})
    assert answer.status_code == 404
    assert locked("POST", "/").status_code == 405
    assert error_of(locked("GET", "/v1/status"))["code"] == "no-key"


def test_what_a_page_needs_to_know(digits: Model) -> None:
    client = client_of(ServeSettings(max_n=3, max_steps=70), mine=digits)
    (model,) = client("GET", "/v1/models").json()["data"]
    assert (model["shipped"], model["precision"]) == ("ddpm-mnist", "fp32")
    assert model["features"] == ["guidance", "known", "norms"]
    assert (model["classes"], model["null_label"]) == (10, True)
    assert model["default"] == digits.bundle.manifest.program.call.to_dict()
    samplers = {each["id"]: each for each in client("GET", "/v1/samplers").json()["data"]}
    assert [*samplers] == [*SAMPLERS] == model["samplers"]
    assert samplers["ddim"]["arguments"]["eta"] == {"type": "float", "default": 0.0}
    assert client("GET", "/v1/status").json()["limits"] == {"n": 3, "num_inference_steps": 70}


def test_two_looks_tell_how_full_the_batch_was(gated: Model, gate: Gate) -> None:
    client = client_of(digits=gated)

    async def drawing() -> None:
        async def load() -> dict[str, int]:
            said = (await client.ask("GET", "/v1/status")).json()
            assert said["draining"] is False
            return dict(said["models"][0])

        first = await load()
        assert first == {
            **{"id": "digits", "waiting": 0, "running": 0, "steps": 0, "sample_steps": 0},
            **{"max_batch": 4, "slots": 16},
        }
        fields = {"n": 3, "num_inference_steps": 5, "sampler": "ddim"}
        drawn = asyncio.create_task(client.ask("POST", "/v1/samples", json=fields))
        await wait_at(gate)
        assert (await load())["running"] == 3
        gate.may.release(2)
        await wait_at(gate)
        await wait_at(gate)
        second = await load()
        assert (second["steps"], second["sample_steps"]) == (2, 6)
        gate.open()
        assert (await drawn).status_code == 200
        third = await load()
        assert (third["steps"], third["sample_steps"], third["running"]) == (5, 15, 0)

    run(drawing())
