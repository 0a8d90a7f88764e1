"""Pages in Chromium that a test drives, and servers for them in this process."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")

DRIVER = Path(__file__).with_name("browse.mjs")
REFUSED = "Failed to load resource"  # what Chromium prints for each answer that is an error


class Browser:
    """A Chromium, which runs from the first order on."""

    def __init__(self, node: str, chromium: str, modules: Path) -> None:
        self._command = [node, str(DRIVER), str(modules), chromium]
        self._process: subprocess.Popen[str] | None = None

    def order(self, **order: Any) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        said = json.loads(self._process.stdout.readline())
        assert "error" not in said, said["error"]
        return said.get("value")

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    @contextmanager
    def tab(self, url: str, *, refusals: bool = False, **options: Any) -> Iterator["Tab"]:
        """Open a page; at the end nothing may have gone wrong, other than `refusals`."""
        self.order(open=url, options=options)
        try:
            yield Tab(self)
            found = self.order(close=True)
        except BaseException:  # it may wait for ever, and its requests keep the server from ending
            self.end()
            raise
        faults = [text for text in found["faults"] if not (refusals and text.startswith(REFUSED))]
        assert faults == [], faults
        own = (url, f"blob:{url}", "data:")
        assert [asked for asked in found["requests"] if not asked.startswith(own)] == []


@dataclass
class Tab:
    """A page; a call runs the body of an async function in Node, whose `page` is Playwright's."""

    browser: Browser

    def __call__(self, code: str, **given: Any) -> Any:
        return self.browser.order(run=code, given=given)

    def fill(self, choice: int = 0, **fields: Any) -> None:
        """Choose by the names of the fields."""
        for name, value in fields.items():
            own = f"#choices .choice:nth-child({choice + 1}) [name={name}]"
            place = own if self(f"return page.locator('{own}').count()") else f"#form [name={name}]"
            select = self(f"return page.locator('{place}').evaluate((e) => e.localName)")
            how = "selectOption" if select == "select" else "fill"
            self(f"await page.{how}(place, value)", place=place, value=str(value))

    def until(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        # Playwright's own function for this is forbidden by the page's policy.
        self(
            """
            while (!(await page.evaluate(condition)))
              await page.evaluate(() => new Promise(requestAnimationFrame));
            """,
            condition=condition,
        )

    def until_said(self, text: str, panel: int = 0) -> None:
        """Wait until a panel says a text of its progress."""
        facts = f"document.querySelectorAll('.panel .facts')[{panel}]?.textContent ?? ''"
        self.until(f"({facts}).startsWith({json.dumps(text)})")

    def until_done(self, panel: int = 0) -> None:
        """Wait until a panel is done."""
        self.until(f"document.querySelectorAll('.panel')[{panel}]?.dataset.state === 'done'")

    def text(self, place: str) -> str:
        return str(self("return page.locator(place).first().textContent()", place=place))


@contextmanager
def served(application: Any) -> Iterator[str]:
    """Serve an application in a thread; yields its address, which ends in a slash."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
