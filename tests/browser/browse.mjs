// Runs JavaScript on pages in a Chromium without a window: a line of JSON in, a line of JSON out.
//
//   node browse.mjs MODULES CHROMIUM
//
// {"open": URL, "options": {...}} opens a page, {"run": CODE, "given": {...}} runs the body of an async
// function on it, and {"close": true} closes it and says what went wrong meanwhile.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, executablePath] = process.argv.slice(2);
const require = createRequire(`${modules}/any.js`);
const { chromium } = require("playwright-core");
const AsyncFunction = (async () => {}).constructor;

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
  timeout: 0, // whoever runs this has a limit of their own
});
let context, page, found;

const orders = {
  async open({ open, options }) {
    context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"], ...options });
    page = await context.newPage();
    page.setDefaultTimeout(0);
    found = { faults: [], requests: [] };
    page.on("request", (request) => found.requests.push(request.url()));
    page.on("pageerror", (error) => found.faults.push(String(error)));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) found.faults.push(message.text());
    });
    await page.exposeFunction("violated", (text) => found.faults.push(text));
    await page.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", ({ violatedDirective: rule, blockedURI: what }) =>
        window.violated(`violates ${rule}: ${what}`),
      );
    });
    await page.goto(open);
  },
  run: ({ run, given }) => {
    const scope = { page, context, found, readFile, require, ...given };
    return new AsyncFunction(...Object.keys(scope), run)(...Object.values(scope));
  },
  async close() {
    await context.close();
    return found;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const name = Object.keys(orders).find((each) => each in order);
  const said = await orders[name](order).then(
    (value) => ({ value }),
    (error) => ({ error: String(error.stack) }),
  );
  console.log(JSON.stringify(said));
}
await browser.close();
