// One request and what comes of it: tiles that denoise, progress, and what to do with them.

import { command, fileName, python } from "./again.js";
import { ask, events, Refusal } from "./api.js";
import { columnsFor, save, scatter, sheet } from "./picture.js";

const template = document.getElementById("panel");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const MOST_EVENTS = 480; // previews of all samples together
const MOST_PREVIEWS = 48; // of one

export class Panel {
  constructor(model, request) {
    this.model = model;
    this.request = request;
    this.element = template.content.cloneNode(true).firstElementChild;
    this.parts = Object.fromEntries(
      ["h2", "progress", ".facts", ".problem", ".caution", ".picture", ".after", ".back", ".save", ".again"].map((name) => [
        name.replace(".", ""),
        this.element.querySelector(name),
      ]),
    );
    this.parts.h2.textContent = request.sampler;
    this.parts.progress.ariaLabel = `Steps of ${request.sampler}`;
    this.tiles = [];
    if (model.images) this.#layTiles();
    this.#say("running", "Asking the server");
  }

  /** Draw, until it is done or `signal` ends it. Returns the error, if there is one. */
  async draw(signal) {
    try {
      await (this.model.images ? this.#stream(signal) : this.#numbers(signal));
    } catch (error) {
      if (error.name === "AbortError") {
        this.#say("cancelled", this.steps ? `Cancelled after ${this.#least()} of ${this.steps} steps` : "Cancelled");
        return undefined;
      }
      if (!(error instanceof Refusal)) throw error;
      const hint = document.createElement("span");
      hint.textContent = error.hint ? ` Hint: ${error.hint}.` : "";
      this.parts.problem.append(`${error.message}.`, hint);
      this.#say("failed", "Not drawn");
      return error;
    }
    return undefined;
  }

  async #stream(signal) {
    const { n } = this.request;
    const previews = Math.max(3, Math.min(MOST_PREVIEWS, Math.floor(MOST_EVENTS / n)));
    const body = bodyOf({ ...this.request, stream: true, previews });
    let done = 0;
    const answer = await ask("v1/images/generations", { body, signal });
    this.#say("running", "Waiting for its turn");
    for await (const event of events(answer)) {
      this.#warn(event);
      const tile = this.tiles[event.index];
      const source = `data:image/png;base64,${event.b64_json}`;
      if (event.type === "image_generation.partial_image") {
        this.steps = event.steps;
        tile.steps.push({ step: event.step, source });
        this.#show(tile, tile.steps.length - 1, !calm.matches);
        this.#say("running", `Step ${this.#least()} of ${event.steps}`);
      } else {
        done += 1;
        tile.steps.push({ step: this.steps ?? event.steps, source, done: true });
        this.#show(tile, tile.steps.length - 1);
        if (done === n) await this.#finish(event);
      }
    }
    if (done < n) throw new Refusal({ message: "The server ended the stream early", hint: "see its log" });
  }

  async #numbers(signal) {
    const { shape } = this.model;
    if (shape.length !== 1 || shape[0] !== 2) {
      const message = `Samples of ${shape.join(" × ")} numbers cannot be drawn here`;
      throw new Refusal({ message, hint: "ask for them at /v1/samples" });
    }
    const answer = await ask("v1/samples", { body: bodyOf(this.request), signal });
    const said = await answer.json();
    this.#warn(said);
    this.parts.picture.append(scatter(said.samples));
    this.parts.save.textContent = "Save as CSV";
    this.parts.save.onclick = () => {
      const lines = said.samples.map((point) => point.join(","));
      save(new Blob([["x,y", ...lines, ""].join("\n")], { type: "text/csv" }), `${fileName(this.request)}.csv`);
    };
    this.#end(said);
  }

  /** Say why the samples may be poor. Each event says it again. */
  #warn({ warnings }) {
    this.parts.caution.textContent = warnings.map((warning) => `Warning: ${warning}.`).join(" ");
  }

  /** Let the tiles be saved, and their previews be looked at again. */
  async #finish(event) {
    const images = this.tiles.map(({ image }) => image);
    await Promise.all(images.map((image) => image.decode()));
    for (const [index, { link, image }] of this.tiles.entries()) {
      link.href = image.src;
      link.download = `${fileName(this.request)}-${index}.png`;
    }
    const name = `${fileName(this.request)}.png`;
    const whole = await sheet(images); // before anybody looks back
    this.parts.save.onclick = () => save(whole, name);
    this.parts.save.textContent = images.length > 1 ? "Save all" : "Save";
    this.#lookBack();
    this.#end(event);
  }

  #lookBack() {
    const slider = this.parts.back.querySelector("input");
    const most = Math.max(...this.tiles.map(({ steps }) => steps.length)) - 1;
    this.parts.back.hidden = !most;
    slider.max = slider.value = most;
    slider.oninput = () => {
      for (const tile of this.tiles) {
        const behind = most - slider.valueAsNumber;
        this.#show(tile, Math.max(0, tile.steps.length - 1 - behind));
      }
      this.#tellSlider(slider);
    };
    this.#tellSlider(slider);
  }

  #tellSlider(slider) {
    const { shown } = this.tiles[0];
    slider.ariaValueText = shown.done ? "the picture" : `step ${shown.step} of ${this.steps}`;
    this.parts.back.querySelector("span").textContent = shown.done ? "Look back" : `Step ${shown.step}`;
  }

  #end(record) {
    const { n, seed } = this.request;
    const waited = record.queue_seconds >= 0.1 ? `, waited ${record.queue_seconds.toFixed(1)} s` : "";
    const took = `${record.seconds.toFixed(1)} s${waited}`;
    const steps = /steps=(\d+)/.exec(record.program);
    const facts = [steps && `${steps[1]} steps`, n > 1 ? `${n} samples` : "1 sample", `seed ${seed}`, took];
    this.#say("done", facts.filter(Boolean).join(" · "));
    this.parts.after.hidden = false;
    this.#offerAgain(record);
  }

  #offerAgain({ program, bundle }) {
    const { again } = this.parts;
    again.querySelector(".command").textContent = command(this.request, this.model);
    again.querySelector(".python").textContent = python(this.request, this.model, program);
    const name = this.model.id;
    again.querySelector(".note").textContent = this.model.shipped
      ? "The model comes with difftool. On another machine the last bits may be rounded differently."
      : `Here ${name} stands for the folder of the bundle ${bundle.slice(0, 12)}, which is on the server.`;
    again.hidden = false;
  }

  #layTiles() {
    const list = document.createElement("ul");
    list.className = "tiles";
    list.style.setProperty("--columns", columnsFor(this.request.n));
    const [, height, width] = this.model.shape;
    for (let index = 0; index < this.request.n; index++) {
      const link = document.createElement("a");
      const image = document.createElement("img");
      const bar = document.createElement("span");
      image.width = width;
      image.height = height;
      image.hidden = true;
      image.alt = `Sample ${index}${this.#label()}`;
      link.title = "Save as PNG";
      bar.className = "bar";
      link.append(image, bar);
      const item = document.createElement("li");
      item.append(link);
      list.append(item);
      this.tiles.push({ link, image, bar, steps: [] });
    }
    this.parts.picture.append(list);
  }

  #label() {
    const { labels } = this.request; // without it each sample has a class of its own
    return labels === undefined ? "" : `, class ${this.model.class_names[labels] ?? labels}`;
  }

  #show(tile, index, visibly = true) {
    const { step, source, done } = (tile.shown = tile.steps[index]);
    tile.bar.style.setProperty("--done", done ? 1 : step / this.steps);
    if (visibly) {
      tile.image.src = source;
      tile.image.hidden = false;
    }
  }

  /** The steps of the sample that is the furthest behind. */
  #least() {
    return Math.min(...this.tiles.map(({ steps }) => steps.at(-1)?.step ?? 0));
  }

  #say(state, text) {
    const all = this.tiles.reduce((sum, { steps }) => sum + (steps.at(-1)?.step ?? 0), 0);
    this.element.dataset.state = state;
    this.parts.facts.textContent = text;
    this.parts.progress.value = state === "done" ? 1 : all / (this.tiles.length * this.steps) || 0;
  }
}

/** A request as JSON. Its seed is a string of digits: it may be larger than a number holds. */
function bodyOf({ seed, ...fields }) {
  return `{"seed":${BigInt(seed)},${JSON.stringify(fields).slice(1)}`;
}
