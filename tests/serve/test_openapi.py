"""/openapi.json describes all routes and nothing else, and its examples are true."""

import copy
import json
from typing import Any

import pytest
from starlette.routing import Route

from difftool.runtime import Model
from difftool.serve import ServeSettings
from tests.serve.conftest import Client, client_of

IMAGES = "/v1/images/generations"


@pytest.fixture
def client(digits: Model) -> Client:
    return client_of(digits=digits)


def described(client: Client) -> Any:
    answer = client("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def methods_of(client: Client) -> set[tuple[str, str]]:
    return {
        (method, route.path)
        for route in client.application.router.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods or ()
        if method != "HEAD"  # which Starlette adds to each GET
    }


def require_all_routes(client: Client, description: Any) -> None:
    said = {
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations
    }
    assert said == methods_of(client)


def require_true(client: Client, description: Any) -> int:
    """Compare each example with its schema, and send those of bodies; return how many there are."""
    jsonschema = pytest.importorskip("jsonschema")
    count = 0

    def check(media: Any) -> list[Any]:
        found = [each["value"] for each in media.get("examples", {}).values() if "value" in each]
        found += [media["example"]] if "example" in media else []
        # References lead into the whole description.
        schema = {**media.get("schema", {}), "components": description["components"]}
        for example in found:
            jsonschema.Draft202012Validator(schema).validate(example)
        return found

    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for answer in operation["responses"].values():
                count += sum(len(check(media)) for media in answer.get("content", {}).values())
            body = operation.get("requestBody", {}).get("content", {})
            for example in check(body.get("application/json", {})):
                names = {each["name"]: each for each in operation["parameters"]}
                where = path.replace("{name}", str(names.get("name", {}).get("example")))
                answer = client(method.upper(), where, json=example)
                assert answer.status_code == 200, answer.text
                assert "error" not in answer.text
                count += 1
    return count


def test_it_is_openapi(client: Client) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    description = described(client)
    validator.validate(description)
    broken = copy.deepcopy(description)
    broken["paths"][IMAGES]["post"]["responses"]["200"].pop("description")
    del broken["info"]["title"]
    with pytest.raises(Exception, match="is a required property"):
        validator.validate(broken)


def test_it_has_all_routes(client: Client) -> None:
    description = described(client)
    require_all_routes(client, description)
    del description["paths"]["/v2/models/{name}/ready"]
    with pytest.raises(AssertionError):
        require_all_routes(client, description)


def test_examples_are_true(client: Client) -> None:
    description = described(client)
    assert require_true(client, description) > 60
    content = description["paths"][IMAGES]["post"]["requestBody"]["content"]
    content["application/json"]["examples"]["some"]["value"] |= {"sampler_arguments": {"eat": 1}}
    with pytest.raises(AssertionError):
        require_true(client, description)


def test_the_example_of_an_event_is_one(client: Client) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    description = described(client)
    ok = description["paths"][IMAGES]["post"]["responses"]["200"]
    stream = ok["content"]["text/event-stream"]
    (event,) = stream["examples"]["completed"]["dataValue"]
    schema = {
        **stream["itemSchema"]["properties"]["data"]["contentSchema"],
        "components": description["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(event["data"])
    assert event["event"] == event["data"]["type"]


def test_what_is_not_sent_again_is_described(client: Client) -> None:
    paths, tagged = described(client)["paths"], set()
    for path, operations in paths.items():
        if "get" not in operations:
            continue
        operation = operations["get"]
        given = {each["name"]: str(each.get("example")) for each in operation["parameters"]}
        where = path.format(**given)
        if etag := client("GET", where).headers.get("etag"):
            tagged.add(path)
            again = client("GET", where, headers={"if-none-match": etag})
            assert str(again.status_code) in operation["responses"]
            assert "if-none-match" in given
            for status in ("200", "304"):
                assert "etag" in operation["responses"][status]["headers"]
        else:
            assert "304" not in operation["responses"]
    assert tagged == {"/", "/page/{file}"}


def test_keys_are_described(digits: Model) -> None:
    key = "k" * 16
    client = client_of(ServeSettings(keys=(key,)), digits=digits)
    assert client("GET", "/openapi.json").status_code == 401
    answer = client("GET", "/openapi.json", headers={"authorization": f"Bearer {key}"})
    paths = answer.json()["paths"]
    assert paths["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in paths["/health"]["get"]
    assert key not in json.dumps(answer.json())


def test_what_needs_no_key_is_described(digits: Model) -> None:
    """A route says that it needs a key if, and only if, it does."""
    key = "k" * 16
    client = client_of(ServeSettings(keys=(key,)), digits=digits)
    headers = {"authorization": f"Bearer {key}"}
    paths = client("GET", "/openapi.json", headers=headers).json()["paths"]
    opened = set()
    for path, operations in paths.items():
        for method, operation in operations.items():
            given = {each["name"]: str(each.get("example")) for each in operation["parameters"]}
            answer = client(method.upper(), path.format(**given))
            assert (answer.status_code == 401) == ("security" in operation), path
            opened |= set() if "security" in operation else {path}
    probes = {"/health", "/ready", "/v2/health/live", "/v2/health/ready"}
    assert opened == probes | {"/", "/page/{file}"}


@pytest.mark.parametrize(
    "path",
    ["/", "/page/app.js", "/v1/models", "/v1/models/digits", "/v1/samplers", "/v1/status", "/v2"],
)
def test_answers_are_as_described(client: Client, path: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    description = described(client)
    pattern = {"/v1/models/digits": "/v1/models/{name}", "/page/app.js": "/page/{file}"}
    answer = client("GET", path)
    said = description["paths"][pattern.get(path, path)]["get"]["responses"]["200"]["content"]
    kind = said[answer.headers["content-type"].partition(";")[0]]
    schema = {**kind["schema"], "components": description["components"]}
    json_sent = "json" in answer.headers["content-type"]
    jsonschema.Draft202012Validator(schema).validate(answer.json() if json_sent else answer.text)
