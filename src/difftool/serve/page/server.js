// How much the server has to do: small plots of the last minute, for as long as somebody looks.

import { ask } from "./api.js";
import { element } from "./picture.js";

const WINDOW = 60; // seconds in a plot
const BUSY = 500; // milliseconds between two looks while somebody draws
const IDLE = 4000; // and while nobody does
const [WIDTH, HEIGHT] = [100, 32];
const PLOTS = [
  { of: "waiting", name: "Requests waiting", text: ({ waiting }) => [waiting], top: () => 4 },
  { of: "running", name: "Samples running", text: ({ running, slots }) => [running, `of ${slots}`], top: ({ slots }) => slots },
  { of: "batch", name: "Samples in a step", text: ({ batch, most }) => [batch.toFixed(1), `of ${most}`], top: ({ most }) => most },
  { of: "rate", name: "Steps a second", text: ({ rate }) => [rate.toFixed(rate < 10 ? 1 : 0)], top: () => 1 },
];

export class Server {
  constructor(plots, state) {
    this.state = state;
    this.seen = []; // what two looks tell of the time between them, the newest last
    this.limits = undefined;
    for (const plot of PLOTS) plots.append(this.#lay(plot));
    document.addEventListener("visibilitychange", () => this.#go());
  }

  /** Watch a model from now on. */
  watch(name) {
    this.name = name;
    this.seen = [];
    this.last = undefined;
    this.#go();
  }

  /** Look now, and then as often as while somebody draws. */
  hurry() {
    this.#go();
  }

  #go() {
    clearTimeout(this.timer);
    if (!document.hidden && this.name) this.#look();
  }

  async #look() {
    const { name } = this;
    let busy = false;
    try {
      const said = await (await ask("v1/status", { quietly: true })).json();
      if (name !== this.name) return;
      this.limits = said.limits;
      busy = this.#take(said.seconds, said.models.find(({ id }) => id === name));
      this.#say(said.draining ? "Ending: it takes no new requests" : "Ready", said.draining ? "failed" : "ready");
    } catch (error) {
      this.#say(error.message, "failed");
    }
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.#look(), busy ? BUSY : IDLE);
  }

  #take(at, load) {
    const before = this.last;
    this.last = { at, ...load };
    if (before && at > before.at) {
      const steps = load.steps - before.steps;
      this.seen.push({
        from: before.at,
        at,
        waiting: load.waiting,
        running: load.running,
        batch: steps ? (load.sample_steps - before.sample_steps) / steps : 0,
        rate: steps / (at - before.at),
      });
      this.seen = this.seen.filter((each) => each.at > at - WINDOW);
    } else {
      this.seen = []; // the first look, or the server began anew
    }
    const now = { batch: 0, rate: 0, ...load, ...this.seen.at(-1), slots: load.slots, most: load.max_batch };
    for (const plot of PLOTS) this.#draw(plot, now);
    return load.running + load.waiting > 0;
  }

  #lay(plot) {
    const box = document.createElement("div");
    const [term, value, svg] = [
      document.createElement("dt"),
      document.createElement("dd"),
      element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }),
    ];
    term.textContent = plot.name;
    const number = document.createElement("strong");
    const rest = document.createElement("span");
    number.textContent = "–";
    value.append(number, " ", rest, svg);
    svg.append(element("path", { class: "area" }), element("path", { class: "line" }));
    box.append(term, value);
    box.dataset.of = plot.of;
    Object.assign(plot, { number, rest, svg });
    return box;
  }

  #draw({ of, text, top, number, rest, svg }, now) {
    [number.textContent, rest.textContent = ""] = text(now);
    const highest = Math.max(top(now), ...this.seen.map((each) => each[of]));
    const x = (at) => (WIDTH * (at - this.last.at + WINDOW)) / WINDOW;
    const y = (value) => HEIGHT - 1 - ((HEIGHT - 2) * value) / highest;
    const steps = this.seen.map((each) => `L${x(each.from)} ${y(each[of])}L${x(each.at)} ${y(each[of])}`).join("");
    const begin = this.seen.length ? x(this.seen[0].from) : WIDTH;
    svg.querySelector(".line").setAttribute("d", steps.replace("L", "M"));
    svg.querySelector(".area").setAttribute("d", `M${begin} ${HEIGHT}${steps}L${WIDTH} ${HEIGHT}Z`);
  }

  #say(text, state) {
    this.state.textContent = text;
    this.state.dataset.state = state;
  }
}
