// The page: a form, a worker that runs the model, and a canvas.

import { drawGrid, drawPoints, toImages } from "./picture.js";

const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((element) => [element.id, element]),
);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const LARGEST_SEED = 2n ** 64n - 1n;

let model;
let run = { id: 0 }; // what was asked for last

start().catch((error) => fail(error.message));

async function start() {
  const response = await fetch(new URL("./model/model.json", import.meta.url));
  if (!response.ok) throw new Error(`model.json: ${response.status} ${response.statusText}`);
  model = await response.json();
  document.title = page.title.textContent = model.title;
  page.about.textContent = `${model.shape.join(" × ")}, ${model.parameters.toLocaleString("en")} parameters`;
  for (const sampler of new Set(model.programs.map((program) => program.sampler))) {
    page.sampler.append(new Option(sampler));
  }
  page.sampler.onchange = offerSteps;
  offerSteps();
  offerLabels();
  page.form.onsubmit = (event) => {
    event.preventDefault();
    draw();
  };
  page.stop.onclick = () => worker.postMessage({ kind: "stop" });
  worker.onmessage = ({ data }) => data.id === run.id && answers[data.kind](data);
  worker.onerror = (event) => fail(event.message || "The worker could not be started.");
  worker.postMessage({ kind: "open", id: run.id });
}

function offerSteps() {
  const programs = model.programs.filter(({ sampler }) => sampler === page.sampler.value);
  page.steps.replaceChildren(...programs.map(({ steps, file }) => new Option(steps, file)));
}

function offerLabels() {
  page["label-field"].hidden = !model.classes;
  page["guidance-field"].hidden = !model.guidance;
  page.label.append(new Option("any", -1));
  for (let label = 0; label < model.classes; label++) page.label.append(new Option(label, label));
}

function draw() {
  if (BigInt(page.seed.value) > LARGEST_SEED) {
    page.seed.setCustomValidity("A seed is at most 18446744073709551615.");
    page.seed.reportValidity();
    page.seed.oninput = () => page.seed.setCustomValidity("");
    return;
  }
  run = { id: run.id + 1, n: page.count.valueAsNumber };
  setState("running", "Starting.");
  worker.postMessage({
    kind: "draw",
    id: run.id,
    seed: page.seed.value,
    n: run.n,
    file: page.steps.value,
    live: page.live.checked,
    label: model.classes ? Number(page.label.value) : undefined,
    guidance: model.guidance ? page.guidance.valueAsNumber : undefined,
  });
}

const answers = {
  opened: () => setState("ready", "Ready."),
  progress: (data) => show(data, "running"),
  done: (data) => show(data, "done"),
  stopped: ({ row, total }) => setState("stopped", `Stopped after ${row} of ${total} steps.`),
  failed: ({ message }) => fail(message),
};

function show({ row, total, seconds, samples, images }, state) {
  if (model.image) {
    drawGrid(page.picture, images ?? toImages(samples, run.n, model.shape, model.range), run.n, model.shape);
  } else {
    drawPoints(page.picture, samples);
  }
  const step = ((1000 * seconds) / row).toFixed(1);
  const text = `${row} of ${total} steps, ${seconds.toFixed(1)} s, ${step} ms a step`;
  setState(state, text, row / total);
  if (state === "done") offerPicture();
}

function offerPicture() {
  const { id } = run;
  page.picture.toBlob((blob) => {
    if (id !== run.id) return;
    URL.revokeObjectURL(page.save.href);
    page.save.href = URL.createObjectURL(blob);
    page.save.download = `${model.title}-${page.seed.value}.png`;
    page.save.hidden = false;
  });
}

function fail(message) {
  setState("failed", message);
}

function setState(state, text, done = 0) {
  page.result.dataset.state = state;
  page.status.textContent = text;
  page.progress.value = done;
  page.fields.disabled = page.draw.disabled = state === "running" || !model;
  page.stop.disabled = state !== "running";
  if (state === "running") page.save.hidden = true;
}
