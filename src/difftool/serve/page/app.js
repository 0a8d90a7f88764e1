// The page: a form of what to draw, one panel or two of what came of it, and the server's plots.

import { ask, Refusal } from "./api.js";
import { Choice } from "./choice.js";
import { Panel } from "./panel.js";
import { Server } from "./server.js";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const server = new Server(document.querySelector(".plots"), page.state);
const LARGEST_SEED = 2n ** 64n - 1n;
const FIRST = ["unipc", "ddim"]; // good in few steps; without fresh noise, so they can be compared

let models;
let choices;
let running; // an AbortController while something is drawn

page.retry.onclick = start;
start();

async function start() {
  page.retry.hidden = true;
  page.fault.textContent = "";
  try {
    const [found, samplers, status] = await Promise.all(
      ["v1/models", "v1/samplers", "v1/status"].map(async (path) => (await ask(path)).json()),
    );
    open(found.data, new Map(samplers.data.map((sampler) => [sampler.id, sampler])), status.limits);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    page.fault.textContent = `${error.message}. Hint: ${error.hint}.`;
    page.retry.hidden = false;
  }
}

function open(found, samplers, limits) {
  models = new Map(found.map((model) => [model.id, model]));
  choices = [new Choice(samplers), new Choice(samplers)];
  page.choices.replaceChildren(...choices.map(({ element }) => element));
  page.model.replaceChildren(...[...models.keys()].map((name) => new Option(name)));
  page.n.max = limits.n;
  page.model.onchange = () => offer(limits);
  page.compare.onchange = offerTwo;
  page["new-seed"].onclick = () => {
    [page.seed.value] = crypto.getRandomValues(new Uint32Array(1));
    page.seed.dispatchEvent(new Event("input", { bubbles: true }));
  };
  page.form.oninput = () => {
    page.seed.setCustomValidity("");
    for (const field of page.form.elements) field.removeAttribute("aria-invalid");
  };
  page.form.onsubmit = (event) => {
    event.preventDefault();
    draw();
  };
  page.cancel.onclick = cancel;
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && !page.lock.open) cancel();
  });
  offer(limits);
  offerTwo();
  page.draw.disabled = false;
  document.body.dataset.state = "ready";
}

/** Offer what the chosen model can do. */
function offer(limits) {
  const model = models.get(page.model.value);
  const { classes, shape, images } = model;
  const kind = images ? `${shape.slice(1).join(" × ")} ${shape[0] === 3 ? "colour" : "grey"} pictures` : `samples of ${shape.join(" × ")} numbers`;
  page.about.textContent = `${model.id} draws ${kind}${classes ? ` of ${classes} classes` : ""}.`;
  choices.forEach((choice, index) => choice.offer(model, limits.num_inference_steps, images ? FIRST[index] : undefined));
  if (!images) page.n.value = limits.n;
  page["of-classes"].hidden = !classes;
  page["of-guidance"].hidden = !(model.features.includes("guidance") && model.null_label);
  const numbers = Array.from({ length: classes }, (_, label) => new Option(model.class_names[label] ?? label, label));
  page.labels.replaceChildren(new Option("any", ""), ...numbers);
  server.watch(model.id);
}

function offerTwo() {
  const two = page.compare.checked;
  choices[1].element.hidden = choices[1].element.disabled = !two;
  choices[0].legend = two ? "First sampler" : "Sampler";
  choices[1].legend = "Second sampler";
  page.choices.classList.toggle("two", two);
}

/** The fields of a request that both sides of a comparison share. */
function common(model) {
  const fields = { model: model.id, n: page.n.valueAsNumber, seed: String(BigInt(page.seed.value)) };
  if (model.classes && page.labels.value) fields.labels = Number(page.labels.value);
  if (!page["of-guidance"].hidden) fields.guidance_scale = page.guidance_scale.valueAsNumber;
  return fields;
}

async function draw() {
  const model = models.get(page.model.value);
  if (running) return;
  if (BigInt(page.seed.value) > LARGEST_SEED) {
    page.seed.setCustomValidity(`A seed is at most ${LARGEST_SEED}.`);
    page.seed.reportValidity();
    return;
  }
  const asked = page.compare.checked ? choices : choices.slice(0, 1);
  const panels = asked.map((choice) => new Panel(model, { ...common(model), ...choice.fields }));
  running = new AbortController();
  page.panels.replaceChildren(...panels.map(({ element }) => element));
  page.panels.classList.toggle("two", panels.length > 1);
  setRunning(true);
  say(`Drawing ${page.n.value} ${page.n.value === "1" ? "sample" : "samples"}.`);
  bringIntoView();
  const begun = panels.map((panel) => panel.draw(running.signal));
  server.hurry();
  try {
    const errors = await Promise.all(begun);
    errors.forEach((error, index) => error?.param && mark(error, choices[index]));
    if (running.signal.aborted) say("Cancelled.");
    else if (!errors.some(Boolean)) say(`Done: ${panels.map((panel) => panel.parts.facts.textContent).join("; ")}`);
  } finally {
    running = undefined;
    setRunning(false);
    server.hurry();
  }
}

function cancel() {
  running?.abort();
}

/** Show which field an error is about. */
function mark({ param }, choice) {
  const field = choice.element.querySelector(`[name="${CSS.escape(param)}"]`) ?? page.form.elements[param];
  field?.setAttribute("aria-invalid", "true");
}

function setRunning(now) {
  const focused = document.activeElement;
  document.body.dataset.state = now ? "running" : "ready";
  page.draw.disabled = now;
  page.cancel.disabled = !now;
  // A button that is disabled loses the focus, and who uses a keyboard their place.
  if (now && focused === page.draw) page.cancel.focus();
  if (!now && focused === page.cancel) page.draw.focus();
}

/** On a phone the panels are below the form. */
function bringIntoView() {
  const { top } = page.panels.getBoundingClientRect();
  if (top < innerHeight / 2) return;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  page.panels.scrollIntoView({ behavior, block: "start" });
}

function say(text) {
  page.said.textContent = text;
}

document.addEventListener("click", async ({ target }) => {
  const button = target.closest?.(".code button");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  await copy(code);
  button.firstChild.data = "Copied";
  say("Copied.");
  setTimeout(() => (button.firstChild.data = "Copy"), 2000);
});

/** Copy the text of an element. Only https and this machine have a clipboard to write to. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }
}
