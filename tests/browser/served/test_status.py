"""The plots of the page of difftool serve show the batch, as long as somebody looks."""

from difftool.runtime.model import Model
from tests.browser.served.looking import OpenTab
from tests.serve.conftest import Gate


def test_the_batch_is_drawn_while_somebody_looks(
    open_tab: OpenTab, gated: Model, gate: Gate
) -> None:
    asked = "return found.requests.filter((url) => url.endsWith('/v1/status')).length"
    with open_tab(digits=gated) as tab:
        tab("await page.check('#compare')")
        tab.fill(0, sampler="ddim", num_inference_steps=1000)
        tab.fill(1, sampler="ddpm", num_inference_steps=1000)
        tab.fill(n=3)
        tab("await page.click('#draw')")
        while gated.scheduler().counts.accepted < 2:  # or one of them would begin alone
            tab("return 1")
        gate.may.release(1)
        tab.until("document.querySelector('[data-of=running] strong').textContent === '6'")
        while tab.text("[data-of=batch] dd strong") != "6.0":
            gate.may.release()
        assert tab.text("[data-of=batch] span") == "of 8"
        assert "L" in tab("return page.locator('[data-of=batch] .line').getAttribute('d')")
        hide = """
            await page.evaluate((hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }, hidden);
        """
        tab(hide, hidden=True)
        before = tab(asked)
        gate.open()
        tab("await page.keyboard.press('Escape'); await page.uncheck('#compare')")
        for _ in range(3):
            tab.until("document.body.dataset.state === 'ready'")
            tab.fill(num_inference_steps=3)
            tab("await page.click('#draw')")
            tab.until_done()
        assert tab(asked) <= before + 1, "one may have been on its way"
        before = tab(asked)
        tab(hide, hidden=False)
        while tab(asked) == before:
            pass
