"""In Chromium, the page of difftool serve cancels, asks for a key, and says what to do."""

import pytest

from difftool.runtime.model import Model
from tests.browser.served.looking import OpenTab, axe
from tests.serve.conftest import Gate

pytest.importorskip("starlette")

from difftool.serve import ServeSettings

KEY = "a-key-for-the-tests"


@pytest.mark.parametrize("how", ["page.click('#cancel')", "page.keyboard.press('Escape')"])
def test_a_cancel_cancels(open_tab: OpenTab, gated: Model, gate: Gate, how: str) -> None:
    runner = gated.scheduler()
    with open_tab(digits=gated) as tab:
        tab.fill(sampler="ddim", num_inference_steps=30, n=2)
        tab("await page.focus('#draw'); await page.keyboard.press('Enter')")
        tab.until_said("Waiting")
        gate.may.release(2)
        tab.until_said("Step 2 of 30")
        tab(f"await {how}")
        tab.until("document.querySelector('.panel').dataset.state === 'cancelled'")
        # A step at a time, as the server may hear of it a little later.
        while runner.counts.pending:
            gate.may.release()
            tab.text(".facts")
        assert (runner.counts.cancelled, runner.counts.ok) == (1, 0)
        tab.until("document.body.dataset.state === 'ready'")
        assert tab.text(".facts") == "Cancelled after 2 of 30 steps"
        assert tab.text("#said") == "Cancelled."
        assert tab("return page.evaluate(() => document.activeElement.id)") == "draw"
        gate.open()
        tab("await page.click('#draw')")
        tab.until_done()


def test_a_key_is_asked_for_and_not_kept(open_tab: OpenTab, digits: Model) -> None:
    settings = ServeSettings(keys=(KEY,))
    with open_tab(settings, digits=digits, wait=False, refusals=True) as tab:
        for key, wrong in (("not-" + KEY, True), (KEY, False)):
            tab.until("document.querySelector('#lock').open")
            assert axe(tab) == []
            tab("await page.fill('#key', key); await page.keyboard.press('Enter')", key=key)
            if wrong:
                tab.until("document.querySelector('#wrong-key').textContent.includes('not one')")
        tab.until("document.body.dataset.state === 'ready'")
        tab.fill(sampler="ddim", num_inference_steps=2, n=1)
        tab("await page.click('#draw')")
        tab.until_done()
        kept = tab(
            """
            const inside = await page.evaluate(() => [
              localStorage, sessionStorage, document.cookie, location.href,
              document.documentElement.outerHTML, document.querySelector("#key").value,
            ].map((each) => JSON.stringify(each)));
            return JSON.stringify([inside, await context.storageState(), found.requests]);
            """
        )
        assert KEY not in kept
        tab("await page.reload()")
        tab.until("document.querySelector('#lock').open")
        tab("await page.keyboard.press('Escape')")
        tab.until("document.querySelector('#fault').textContent.includes('no key')")
        tab("await page.click('#retry')")
        tab.until("document.querySelector('#lock').open")


def test_errors_say_what_to_do(open_tab: OpenTab, digits: Model) -> None:
    settings = ServeSettings(max_work=28 * 28 * 10)
    with open_tab(settings, digits=digits, refusals=True) as tab:
        tab.fill(sampler="ddim", num_inference_steps=2, n=6)
        tab("await page.click('#draw')")
        tab.until("document.querySelector('.panel').dataset.state === 'failed'")
        said = tab.text(".panel .problem")
        assert said.startswith("n: 9408 samples times steps times numbers are more than 7840.")
        assert "Hint: ask for less at a time." in said
        assert tab("return page.locator('#n').getAttribute('aria-invalid')") == "true"
        assert axe(tab) == []
        tab.fill(n=5)
        tab("await page.click('#draw')")
        tab.until_done()
        tab.fill(seed=2**64)
        tab("await page.click('#draw')")
        assert "at most" in tab("return page.locator('#seed').evaluate((e) => e.validationMessage)")
        tab.fill(seed=0)
        tab("await context.setOffline(true); await page.click('#draw')")
        tab.until("document.querySelector('.panel .problem').textContent.includes('reached')")
        assert "Hint: is it still running?" in tab.text(".panel .problem")
