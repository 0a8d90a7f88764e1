"""The server on Ray: two replicas of it behind one address, one of which is killed."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.alone import ray_core, ray_serve
from difftool.errors import MissingDependencyError
from difftool.runtime import Model, to_uint8
from tests.scale.cluster import CORES, cluster, free_port  # noqa: F401

try:
    serve = ray_serve()
except MissingDependencyError:
    pytest.skip("needs ray[serve]", allow_module_level=True)
httpx = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai")
yaml = pytest.importorskip("yaml")

from difftool.serve import RayArguments, on_ray  # noqa: E402
from tests.serve.conftest import events_of  # noqa: E402

pytestmark = pytest.mark.timeout(3600)  # against what hangs: Ray's processes take long to start

FILE: Final = Path(__file__).resolve().parents[2] / "deploy" / "ray-serve.yaml"
CLIENTS: Final = 8
REQUESTS: Final = {False: 60, True: 200}
TRIES: Final = 100
SAMPLES: Final = "/v1/samples"
IMAGES: Final = "/v1/images/generations"
ENDLESS: Final = 100_000  # samples of a request that nobody waits for

Fields = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """An application on Ray: a client of it, and the handle of its deployment."""

    handle: Any
    client: Any

    def replicas(self) -> list[dict[str, Any]]:
        """Return the load of each one that answers."""
        said = self.handle.broadcast("status").results(return_exceptions=True)
        return [each["models"][0] for each in said if isinstance(each, dict)]

    def until(self, met: Callable[[list[dict[str, Any]]], bool]) -> None:
        while not met(self.replicas()):
            pass


@pytest.fixture(scope="module")
def served(cluster: str, tiny_bundle: Path) -> Iterator[Served]:  # noqa: F811
    """Two replicas, by the arguments of the file in deploy/."""
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    ours = {
        "models": {"tiny": str(tiny_bundle)},
        "min_replicas": CORES,
        "max_replicas": CORES,
        "cpus": 1,
        "max_batch": 4,
        "max_n": ENDLESS,
    }
    handle = serve.run(on_ray(RayArguments(**{**arguments_of_file(), **ours})), name="tested")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None) as client:
        yield Served(handle, client)
    serve.shutdown()


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Model:
    return difftool.load(tiny_bundle, threads=1, max_batch=4)


def arguments_of_file() -> dict[str, Any]:
    (application,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))["applications"]
    return dict(application["args"])


def test_the_file_is_as_ray_expects_it() -> None:
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    arguments = RayArguments(**arguments_of_file())
    deployment = on_ray(arguments)._bound_deployment
    assert deployment.name == "difftool"
    assert deployment.max_ongoing_requests > 4 * arguments.max_batch + arguments.queue


def kind_of(i: int) -> str:
    """Return what the i-th request asks for: arrays, pictures or a stream of them."""
    return ("arrays", "pictures", "stream")[i % 3]


def asked(i: int) -> Fields:
    """Return the i-th request; every second one has a seed."""
    return {
        "n": 1 + i % 4,
        "first_sample": i % 5,
        "sampler": "ddim",
        "num_inference_steps": (5, 10, 20)[i // 3 % 3],
        **({"seed": i} if i % 2 else {}),
        **({"stream": True, "partial_images": 1} if kind_of(i) == "stream" else {}),
    }


def send(served: Served, i: int) -> Any:
    """Return the answer to the i-th request; None if it is a stream that was cut."""
    path = SAMPLES if kind_of(i) == "arrays" else IMAGES
    try:
        return served.client.post(path, json=asked(i), headers={"x-request-id": f"request-{i}"})
    except httpx.RemoteProtocolError:
        assert kind_of(i) == "stream"
        return None


def outcome(answer: Any, i: int, tiny: Model) -> str:
    """Return how a request ended; a result has the bits of `Model.sample`."""
    if answer is None:
        return "cut"
    if answer.status_code != 200:
        assert answer.status_code in (500, 503), answer.text
        return str(answer.status_code)
    if kind_of(i) == "arrays":
        seed, found = answer.json()["seed"], np.float32(answer.json()["samples"])
        np.testing.assert_array_equal(found, drawn(tiny, i, seed))
        return "ok"
    if kind_of(i) == "pictures":
        seed, pictures = answer.json()["seed"], answer.json()["data"]
    else:
        pictures = [said for name, said in events_of(answer.text) if name.endswith("completed")]
        assert [each["index"] for each in pictures] == list(range(asked(i)["n"]))
        seed = pictures[0]["seed"]
    wanted = to_uint8(drawn(tiny, i, seed), tiny.spec)[..., 0]
    np.testing.assert_array_equal(decoded(pictures), wanted)
    return "ok"


def drawn(tiny: Model, i: int, seed: int) -> np.ndarray:
    """Return what this process draws for the i-th request."""
    fields = asked(i)
    assert fields.get("seed", seed) == seed
    program = difftool.samplers.ddim(tiny.spec, steps=fields["num_inference_steps"])
    first = fields["first_sample"]
    return tiny.sample(program, n=fields["n"], seed=seed, first_sample=first)


def decoded(pictures: list[dict[str, Any]]) -> np.ndarray:
    files = [io.BytesIO(base64.b64decode(each["b64_json"])) for each in pictures]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def kill_one() -> None:
    """Kill the process of a replica."""
    ray = ray_core()
    actors = ray.util.list_named_actors(all_namespaces=True)
    name = next(each["name"] for each in actors if each["name"].startswith("SERVE_REPLICA"))
    ray.kill(ray.get_actor(name, namespace="serve"))


def test_a_replica_is_killed(served: Served, tiny: Model, nightly: bool) -> None:
    """Each request ends in a result or an error, and in the same result if it is sent again."""
    count = REQUESTS[nightly]
    ended: dict[int, str] = {}
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = {pool.submit(send, served, i): i for i in range(count)}
        for answered in as_completed(asking):
            i = asking[answered]
            ended[i] = outcome(answered.result(), i, tiny)
            if len(ended) == count // 3:
                assert all(each["steps"] for each in served.replicas()), "one has done nothing"
                kill_one()
    counts = Counter(ended.values())
    assert sum(counts.values()) == count
    assert counts["ok"] >= count // 2, counts
    for i in (i for i, how in ended.items() if how != "ok"):
        assert any(outcome(send(served, i), i, tiny) == "ok" for _ in range(TRIES))
    served.until(lambda replicas: len(replicas) == CORES)


def test_an_id_has_one_seed_in_all_replicas(served: Served) -> None:
    before = served.replicas()
    seeds = set()
    while not both_worked(before, served.replicas()):
        answer = served.client.post(SAMPLES, json={}, headers={"x-request-id": "the-same"})
        assert answer.headers.get_list("x-request-id") == ["the-same"]
        seeds.add(answer.json()["seed"])
    assert len(seeds) == 1


def both_worked(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> bool:
    was, are = (sorted(each["steps"] for each in status) for status in (before, now))
    return sum(are) - sum(was) > are[-1] - was[0] and are[0] > was[0]


def test_a_request_is_cancelled_by_any_replica(served: Served) -> None:
    """Each is asked once: without help every second one would not find the request."""
    for i in range(CLIENTS):
        asked, id = {"n": ENDLESS, "stream": True}, f"long-{i}"
        with served.client.stream(
            "POST", IMAGES, json=asked, headers={"x-request-id": id}
        ) as answer:
            said = served.client.delete(f"/v1/requests/{id}").json()
            assert said == {"id": id, "cancelled": True}
            ((event, error),) = events_of(answer.read().decode())
        assert (event, error["error"]["code"]) == ("error", "cancelled")
    answer = served.client.delete("/v1/requests/long-0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no-such-request")


def test_a_client_that_leaves_frees_its_slots(served: Served) -> None:
    asked = {"n": ENDLESS, "stream": True, "partial_images": 3}
    with served.client.stream("POST", IMAGES, json=asked) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: image_generation.partial_image"
        assert sum(each["running"] for each in served.replicas()) > 0
    served.until(lambda replicas: not any(each["running"] for each in replicas))


def test_other_clients_and_routes(served: Served, tiny: Model) -> None:
    with openai.OpenAI(base_url=f"{served.client.base_url}/v1", api_key="none") as client:
        made = client.images.generate(model="tiny", prompt="", n=2, extra_body={"seed": 7})
    wanted = to_uint8(tiny.sample(n=2, seed=7), tiny.spec)[..., 0]
    np.testing.assert_array_equal(decoded([each.model_dump() for each in made.data]), wanted)
    refused = served.client.post(SAMPLES, json={"n": 0}, headers={"x-request-id": "mine"})
    assert (refused.status_code, refused.json()["error"]["request_id"]) == (400, "mine")
    for path in ("/", "/health", "/ready", "/metrics", "/openapi.json", "/v2/models/tiny"):
        assert served.client.get(path).status_code == 200


def test_what_runs_ends_before_a_replica_does(served: Served, tiny: Model) -> None:
    """The last one: it takes the application away."""
    asked = {"n": 400, "seed": 3}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.client.post, SAMPLES, json=asked)
        served.until(lambda replicas: any(each["running"] for each in replicas))
        serve.delete("tested")
        found = np.float32(answer.result().json()["samples"])
    np.testing.assert_array_equal(found, tiny.sample(n=400, seed=3))
    assert served.client.get("/health").status_code == 404
