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
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".pt", ".safetensors")


class HubServer(ThreadingHTTPServer):
    """A server of the folders of `models`, by id, on a port of its own, to the end of a context.

    `asked` collects what was asked for. With `cut`, the body of a large file ends in its middle.
    """

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.models, self.cut = dict(models), False
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def endpoint(self) -> str:
        """The value of HF_ENDPOINT that leads here."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> set[str]:
        """The names of the files that were asked for."""
        return {path.partition(f"/resolve/{COMMIT}/")[2] for path in self.asked} - {""}


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if path.startswith("/api/models/"):
            id, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._model(id, revision)
        elif path.startswith("/store/"):
            self._stored(self.server.models[path.removeprefix("/store/").rpartition("@")[0]], path)
        else:
            id, _, rest = path.removeprefix("/").partition("/resolve/")
            commit, _, name = rest.partition("/")
            self._file(id, commit, name)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def _model(self, id: str, revision: str) -> None:
        if id == "owner/gated":
            self._send(403, {"X-Error-Code": "GatedRepo"})
        elif id not in self.server.models:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", "v1", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            folder = self.server.models[id]
            files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            siblings = [{"rfilename": file} for file in sorted(files)]
            model = {"id": id, "sha": COMMIT, "siblings": siblings}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(model).encode())

    def _file(self, id: str, commit: str, name: str) -> None:
        if id not in self.server.models or commit != COMMIT:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
            return
        data = (self.server.models[id] / name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT}
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if name.endswith(LARGE):
            linked = {"X-Linked-ETag": tag, "X-Linked-Size": str(len(data))}
            elsewhere = self.server.endpoint.replace("127.0.0.1", "localhost")  # another host
            place = f"{elsewhere}/store/{id}@{name}"
            self._send(302, headers | linked | {"Location": place})
        else:
            self._send(200, headers | {"ETag": tag}, data)

    def _stored(self, folder: Path, path: str) -> None:
        if "Range" in self.headers:  # by who would go on after a cut
            self._send(503, {})
            return
        data = (folder / path.rpartition("@")[2]).read_bytes()
        self._send(200, {}, data, sent=len(data) // 2 if self.server.cut else len(data))

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
