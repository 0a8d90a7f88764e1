"""Every command and every Python block in the documentation runs, in the order of its page."""

import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from difftool.cli import main
from difftool.diffusion.samplers import SAMPLERS
from difftool.errors import pip_install
from tests.pages import PAGES, ROOT, SERVER, blocks
from tests.scale.cluster import unhurried

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def shortened(words: list[str]) -> list[str]:
    """Return the command with few steps, so that a slow one is shortened and not skipped."""
    if words[1] == "distill" and "--print-config" not in words:
        return [*words, "--train-steps", "2", "--batch", "8"]
    if words[1] == "train" and "--print-config" not in words:
        return [*words, "--steps", "2", "--batch", "8"]
    if words[1] == "sample" and "-n" in words and int(words[words.index("-n") + 1]) >= 1000:
        words = [*words, "-n", "16"]
    if "--quality" in words:
        return words
    if words[1] in ("sample", "verify") and ("--steps" not in words or "1000" in words):
        few = "95" if "ncsn-mnist" in words and "--sampler" not in words else "20"
        return [*words, "--steps", few]
    return words


@contextmanager
def serving(words: list[str]) -> Iterator[str]:
    """Run `difftool serve` at any free port, and end it with SIGTERM; yield its address."""
    command = [sys.executable, "-m", *words, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield json.loads(process.stderr.readline())["listening"]
            process.send_signal(signal.SIGTERM)
            process.communicate()
            assert process.returncode == 0
        finally:
            process.kill()


def run_commands(text: str, until: ExitStack, served: list[str]) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "pip":
            continue
        if words[:2] == ["difftool", "serve"]:
            served.append(until.enter_context(serving(words)))
            continue
        if words[0] in ("curl", "python"):
            words = [word.replace(SERVER, served[-1]) for word in words]
            if words[0] == "curl":
                words = [*words, "--fail-with-body", "--silent"]
            else:
                words = [sys.executable, str(ROOT / words[1]), *words[2:]]
            subprocess.run(words, check=True)
            continue
        assert words[0] == "difftool", f"not a command of ours: {line}"
        with unhurried() if "--ray" in words else nullcontext():
            assert main(shortened(words)[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    served: list[str] = []
    with ExitStack() as until:
        for language, text in blocks(page):
            if language == "sh":
                run_commands(text, until, served)
                continue
            if SERVER in text:
                text = text.replace(SERVER, served[-1])
            exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_table_of_samplers_is_that_of_the_code() -> None:
    """`python docs/samplers.py` renews it."""
    page = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
    renewed = runpy.run_path(str(ROOT / "docs" / "samplers.py"))["renewed"]
    assert renewed(page) == page
    assert all(f"\n| `{name}` |" in page for name in SAMPLERS)


def test_the_page_of_all_keys_is_that_of_the_code() -> None:
    """`python docs/configuration.py` writes it."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "configuration.py"))["page"]() == page
    assert "| `optimizer.lr` |" in page


INSTALL = re.compile(r"pip install[^\n`]*?'([^'\[]*)\[")


def test_pages_install_as_errors_do() -> None:
    """From a clone until the first release; the packages of others by their names."""
    name = pip_install("cpu").partition("'")[2].partition("[")[0]
    found = {
        (page.name, named)
        for page in PAGES
        for named in INSTALL.findall(page.read_text(encoding="utf-8"))
    }
    assert len(found) >= 8
    assert {named for _, named in found} == {name, "onnxruntime-gpu"}
