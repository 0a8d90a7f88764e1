// Uses the page as a person would, in a Chromium without a window; prints what came of it as JSON.
//
//   node draw.mjs '{"modules": ..., "chromium": ..., "url": ..., "fields": {...}, "screenshot": ...}'

import { createRequire } from "node:module";

const task = JSON.parse(process.argv[2]);
const { chromium } = createRequire(`${task.modules}/any.js`)("playwright-core");

const browser = await chromium.launch({
  executablePath: task.chromium,
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
  timeout: 0, // whoever runs this has a limit of their own
});
const page = await browser.newPage({ viewport: { width: 1000, height: 780 } });
page.setDefaultTimeout(0);
const found = { requests: [], faults: [], states: [] };
page.on("request", (request) => found.requests.push(request.url()));
page.on("pageerror", (error) => found.faults.push(String(error)));
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) found.faults.push(message.text());
});

await page.goto(task.url);
await page.waitForSelector('#result[data-state="ready"]');
found.samplers = await page.locator("#sampler option").allTextContents();
await page.fill("#seed", task.fields.seed);
await page.fill("#count", task.fields.count);
await page.selectOption("#sampler", task.fields.sampler);
await page.selectOption("#steps", { label: task.fields.steps });
await page.setChecked("#live", task.fields.live);
if (task.fields.label !== undefined) await page.selectOption("#label", task.fields.label);
if (task.fields.guidance !== undefined) await page.fill("#guidance", task.fields.guidance);

// Every row count that the page shows on its way; at the first one it may be told to stop.
await page.evaluate((stop) => {
  window.seen = [];
  const status = document.querySelector("#status");
  new MutationObserver(() => {
    window.seen.push(status.textContent);
    if (stop && status.textContent.includes(" of ")) document.querySelector("#stop").click();
  }).observe(status, { childList: true });
}, task.stop);
await page.click("#draw");
const end = task.stop ? "stopped" : "done";
await page.waitForSelector(`#result[data-state="${end}"]`);
found.seen = await page.evaluate(() => window.seen);
if (!task.stop) {
  await page.waitForSelector("#save:not([hidden])");
  found.picture = await page.evaluate(async () => {
    const blob = await (await fetch(document.querySelector("#save").href)).blob();
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return btoa(String.fromCharCode(...bytes));
  });
  found.name = await page.getAttribute("#save", "download");
}
if (task.screenshot) await page.screenshot({ path: task.screenshot, fullPage: true });
await browser.close();
console.log(JSON.stringify(found));
