// Runs the model away from the page, so that the page answers while a run goes on.

import * as ort from "./ort/ort.wasm.min.mjs";
import { Sampler } from "./sampler.js";

const LOOK_MS = 120; // between two looks at a live run

let opening;
let wanted = 0; // the run that goes on; another number, or 0, ends it

self.onmessage = async ({ data }) => {
  if (data.kind === "stop") {
    wanted = 0;
    return;
  }
  wanted = data.id;
  try {
    opening ??= open();
    const sampler = await opening;
    if (data.kind === "draw") await draw(sampler, data);
    else post("opened", data.id);
  } catch (error) {
    post("failed", data.id, { message: String(error?.message ?? error).split("\n")[0] });
  }
};

async function open() {
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  const model = await bytes("./model/sampler.onnx");
  return new Sampler(ort, await ort.InferenceSession.create(new Uint8Array(model)));
}

/** A run, in one call or, to be looked at, in parts of so many rows that they take a moment. */
async function draw(sampler, { id, seed, n, file, label, guidance, live }) {
  const program = sampler.program(await bytes(`./model/${file}`));
  const total = program.table.dims[0];
  const given = { ...program };
  if (label !== undefined) given.label = sampler.integers(label);
  if (guidance !== undefined) given.guidance_scale = sampler.floats(guidance);

  const begin = performance.now();
  let rows = live ? 1 : total;
  for (let row = 0; row < total; ) {
    const before = performance.now();
    const part = { row: sampler.integers(row), rows: sampler.integers(rows) };
    const out = await sampler.run(BigInt(seed), n, { ...given, ...part });
    row = Math.min(row + rows, total);
    const now = performance.now();
    const done = row === total;
    post(done ? "done" : "progress", id, {
      row,
      total,
      seconds: (now - begin) / 1000,
      samples: done ? out.samples.data : out.denoised.data,
      images: done ? out.images?.data : undefined,
    });
    given.x = out.samples;
    given.history = out.history_next;
    rows = Math.max(1, Math.round((rows * LOOK_MS) / Math.max(1, now - before)));
    await new Promise((resolve) => setTimeout(resolve)); // a message to stop comes in here
    if (wanted !== id) {
      if (!done) post("stopped", id, { row, total });
      return;
    }
  }
}

async function bytes(path) {
  const response = await fetch(new URL(path, import.meta.url));
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

function post(kind, id, more = {}) {
  self.postMessage({ kind, id, ...more });
}
