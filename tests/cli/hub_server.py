"""A hub of models on this machine: as much of its protocol as fetching a few files takes.

A model is asked for at /api/models/ID[/revision/REVISION], a file at /ID/resolve/COMMIT/NAME. Large
files are somewhere else, where a redirection leads, as on the real one.
"""

import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".pt", ".safetensors")


class HubServer:
    """Serves the folders of `models`, by id, on a port of its own; to be used as a context.

    `asked` collects what was asked for. With `cut`, the body of a large file ends in its middle.
    """

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.models = dict(models)
        self.asked: list[str] = []
        self.cut = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def fetched(self) -> set[str]:
        """The names of the files that were asked for."""
        return {path.partition(f"/resolve/{COMMIT}/")[2] for path in self.asked} - {""}

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        if path.startswith("/api/models/"):
            id, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._model(id, revision)
        elif path.startswith("/store/"):
            self._stored(self.hub.models[path.removeprefix("/store/").rpartition("@")[0]], path)
        else:
            id, _, rest = path.removeprefix("/").partition("/resolve/")
            commit, _, name = rest.partition("/")
            self._file(id, commit, name)

    def _model(self, id: str, revision: str) -> None:
        if id == "owner/gated":
            self._send(403, {"X-Error-Code": "GatedRepo"})
        elif id not in self.hub.models:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", "v1", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            folder = self.hub.models[id]
            files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            siblings = [{"rfilename": file} for file in sorted(files)]
            model = {"id": id, "sha": COMMIT, "siblings": siblings}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(model).encode())

    def _file(self, id: str, commit: str, name: str) -> None:
        if id not in self.hub.models or commit != COMMIT:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
            return
        data = (self.hub.models[id] / name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT}
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if name.endswith(LARGE):
            linked = {"X-Linked-ETag": tag, "X-Linked-Size": str(len(data))}
            elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")  # another host
            place = f"{elsewhere}/store/{id}@{name}"
            self._send(302, headers | linked | {"Location": place})
        else:
            self._send(200, headers | {"ETag": tag}, data)

    def _stored(self, folder: Path, path: str) -> None:
        if "Range" in self.headers:  # by who would go on after a cut
            self._send(503, {})
            return
        data = (folder / path.rpartition("@")[2]).read_bytes()
        self._send(200, {}, data, sent=len(data) // 2 if self.hub.cut else len(data))

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes = b"", sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
            self.close_connection = sent is not None and sent < len(body)
