"""Play the tutorials as a new user does, line by line, and keep what one sees.

    python tests/first_hour.py OUT                          # all, in a new environment; minutes
    python tests/first_hour.py OUT --python PYTHON --only first-samples

Each tutorial has a folder in OUT, in which its lines run: with what they printed, their exit codes
and seconds in `transcript.txt`, and the files that they made. A new environment has what the `pip`
lines of the tutorials name, in their order; `deploy` also needs curl. The seconds from the end of
the installation to the first picture are printed.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.pages import ROOT, SERVER, blocks

TUTORIALS: Final = ("first-samples", "train", "embed", "diffusers", "deploy")
PICTURES: Final = (".png", ".gif", ".webp")
_END: Final = "-- end of block --"
# Blocks of Python come as lines of JSON, and share their names as those of one session do.
_SESSION: Final = f"""
import json, sys
names = {{"__name__": "__main__"}}
for line in sys.stdin:
    exec(compile(json.loads(line), "<tutorial>", "exec"), names)
    print({_END!r}, flush=True)
"""


class Hour:
    """The first hour with one Python; `install` says whether its `pip` lines are run."""

    def __init__(self, out: Path, python: Path, *, install: bool) -> None:
        self.out, self.python, self.install = out, python, install
        self.first_picture: float | None = None  # seconds from the first installation's end
        self._installed = time.monotonic()
        self._found = False

    def play(self, tutorial: str) -> None:
        """Run a tutorial; CalledProcessError if a line fails."""
        folder = self.out / tutorial
        folder.mkdir(parents=True)
        with (folder / "transcript.txt").open("w", encoding="utf-8") as transcript:
            Lesson(self, folder, transcript).run(tutorial)

    def installs(self, words: list[str], transcript: IO[str]) -> None:
        """Run a line of pip in the clone."""
        if not self.install:
            return
        line = [str(self.python), "-m", *words, "--quiet"]
        subprocess.run(line, cwd=ROOT, stdout=transcript, stderr=transcript, check=True)
        if not self._found:
            self._installed = time.monotonic()

    def look(self, folder: Path) -> None:
        """Note when the first picture is there."""
        if not self._found and any(file.suffix in PICTURES for file in folder.iterdir()):
            self._found, self.first_picture = True, time.monotonic() - self._installed


class Lesson:
    """One tutorial, whose lines run in its folder."""

    def __init__(self, hour: Hour, folder: Path, transcript: IO[str]) -> None:
        self._hour, self._folder, self._transcript = hour, folder, transcript
        self._server: subprocess.Popen[str] | None = None
        self._session: subprocess.Popen[str] | None = None
        self._address = SERVER

    def run(self, tutorial: str) -> None:
        """Run its blocks in their order, and end what they started."""
        try:
            for language, text in blocks(ROOT / "docs" / "tutorials" / f"{tutorial}.md"):
                if language == "python":
                    self._python(text)
                    continue
                for line in text.replace("\\\n", " ").splitlines():
                    if words := shlex.split(line, comments=True):
                        self._command(words)
                        self._hour.look(self._folder)
        finally:
            self._end()

    def _command(self, words: list[str]) -> None:
        self._say(f"$ {shlex.join(words)}")
        if words[0] == "pip":
            self._hour.installs(words, self._transcript)
            return
        words = [word.replace(SERVER, self._address) for word in words]
        if words[0] == "difftool":
            words = [str(self._hour.python), "-m", *words]
        if words[2:4] == ["difftool", "serve"]:
            self._serve([*words[: words.index("--port")], "--port", "0"])
            return
        begin = time.monotonic()
        done = subprocess.run(
            words,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self._say(done.stdout.rstrip())
        self._say(f"[exit {done.returncode}, {time.monotonic() - begin:.1f} s]\n")
        done.check_returncode()

    def _serve(self, words: list[str]) -> None:
        self._server = subprocess.Popen(words, cwd=self._folder, stderr=subprocess.PIPE, text=True)
        assert self._server.stderr is not None
        said = self._server.stderr.readline()
        self._say(said.rstrip())
        self._address = json.loads(said)["listening"]

    def _python(self, text: str) -> None:
        if self._session is None:
            self._session = subprocess.Popen(
                [str(self._hour.python), "-u", "-c", _SESSION],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self._session.stdin is not None
        assert self._session.stdout is not None
        self._say("".join(f">>> {line}\n" for line in text.splitlines()))
        self._session.stdin.write(json.dumps(text.replace(SERVER, self._address)) + "\n")
        self._session.stdin.flush()
        for line in self._session.stdout:
            if line.strip() == _END:
                return
            self._say(line.rstrip())
        raise subprocess.CalledProcessError(self._session.wait(), "python")

    def _end(self) -> None:
        if self._session is not None:
            self._session.communicate()  # ends it, and closes both pipes
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.communicate()
            self._say(f"[the server ended, exit {self._server.returncode}]")

    def _say(self, text: str) -> None:
        print(text, file=self._transcript, flush=True)


def new_environment(folder: Path) -> Path:
    """Make an environment with pip alone, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def play(out: Path, tutorials: Sequence[str], python: Path | None) -> Hour:
    """Play tutorials into a new folder; with `python` there is no new environment."""
    environment = out / "environment"
    hour = Hour(out, python or new_environment(environment), install=python is None)
    for tutorial in tutorials:
        hour.play(tutorial)
    if python is None:
        shutil.rmtree(environment)
    return hour


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a folder that is not there")
    parser.add_argument("--only", nargs="+", choices=TUTORIALS, default=list(TUTORIALS))
    parser.add_argument("--python", type=Path, help="of an environment that has all; no pip then")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    hour = play(options.out.absolute(), tuple(options.only), options.python)
    if hour.first_picture is not None:
        print(f"the first picture after {hour.first_picture:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
