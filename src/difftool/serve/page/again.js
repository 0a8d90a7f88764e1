// What draws the same samples elsewhere: a command, and Python.

/** The command that draws a request's samples into a file. */
export function command(request, model) {
  const words = ["difftool", "sample", model.shipped ?? model.id, "--sampler", request.sampler];
  if (request.num_inference_steps) words.push("--steps", request.num_inference_steps);
  for (const [name, value] of Object.entries(request.sampler_arguments ?? {})) {
    words.push("--arg", `${name}=${typeof value === "string" ? word(value) : JSON.stringify(value)}`);
  }
  words.push("-n", request.n, "--seed", request.seed);
  if (request.labels !== undefined) words.push("--labels", request.labels);
  if (isGuided(request)) words.push("--guidance-scale", request.guidance_scale);
  if (model.precision !== "fp32") words.push("--precision", model.precision);
  if (model.images) words.push("--scale", 1); // the page's files have the pixels as they are
  words.push("--out", `${fileName(request)}.${model.images ? "png" : "npz"}`);
  return words.map(String).map(quoted).join(" ");
}

/** Python that draws them; `program` is the sampler's call as the answer repeats it. */
export function python(request, model, program) {
  const given = [`n=${request.n}`, `seed=${request.seed}`];
  if (request.labels !== undefined) given.push(`labels=${request.labels}`);
  if (isGuided(request)) given.push(`guidance_scale=${request.guidance_scale}`);
  const name = JSON.stringify(model.shipped ?? model.id);
  const opened = model.precision === "fp32" ? name : `${name}, precision="${model.precision}"`;
  const lines = [
    "import difftool",
    "",
    `model = difftool.load(${opened})`,
    `program = difftool.samplers.${program.replace(/\((?=.)/, "(model.spec, ").replace(", )", ")")}`,
    `samples = model.sample(program, ${given.join(", ")})`,
  ];
  if (model.images) lines.push("images = difftool.to_uint8(samples, model.spec)");
  return lines.join("\n");
}

/** The name of a request's file, without its ending. */
export function fileName({ model, seed }) {
  return `${model}-${seed}`.replace(/[^\w.-]+/g, "_").replace(/^[-.]+/, "");
}

function isGuided({ guidance_scale: scale }) {
  return scale !== undefined && scale !== 1;
}

/** A string as --arg takes it: a word, or JSON if a word would be read as something else. */
function word(text) {
  try {
    JSON.parse(text);
    return JSON.stringify(text);
  } catch {
    return text;
  }
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
