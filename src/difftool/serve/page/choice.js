// The choice of a sampler, its steps and its arguments; a comparison has two of them.

const template = document.getElementById("choice");
let made = 0;

export class Choice {
  /** `samplers` are those of /v1/samplers. */
  constructor(samplers) {
    this.samplers = samplers;
    this.element = template.content.cloneNode(true).firstElementChild;
    this.sampler = this.element.querySelector("select");
    this.steps = this.element.querySelector("input");
    for (const field of [this.sampler, this.steps]) {
      field.id = `${field.name}-${made}`;
      field.previousElementSibling.htmlFor = field.id;
    }
    made += 1;
    this.sampler.onchange = () => this.#offerArguments();
  }

  set legend(text) {
    this.element.querySelector("legend").textContent = text;
  }

  /** Offer what a model of /v1/models can be sampled with. */
  offer(model, most, wanted) {
    const { sampler: own } = model.default;
    const before = this.sampler.value || wanted;
    this.own = model.default;
    this.steps.max = most;
    this.sampler.replaceChildren(
      ...model.samplers.map((name) => new Option(name === own ? `${name} (the model's own)` : name, name)),
    );
    this.sampler.value = model.samplers.includes(before) ? before : own;
    this.#offerArguments();
  }

  /** The fields of a request that this chooses. */
  get fields() {
    const chosen = { sampler: this.sampler.value };
    if (this.steps.value) chosen.num_inference_steps = this.steps.valueAsNumber;
    const given = [...this.element.querySelectorAll(".arguments [name]")].filter((field) => field.value.trim());
    if (given.length) {
      chosen.sampler_arguments = Object.fromEntries(given.map((field) => [field.name, read(field.value.trim())]));
    }
    return chosen;
  }

  #offerArguments() {
    const { source, arguments: known } = this.samplers.get(this.sampler.value);
    const own = this.own.sampler === this.sampler.value ? this.own.arguments : {};
    this.element.querySelector(".source").textContent = source ?? "";
    const offered = Object.entries(known).filter(([name]) => name !== "steps");
    const fields = offered.map(([name, { type, default: usual }]) => this.#field(name, type, own[name] ?? usual));
    this.element.querySelector(".arguments").replaceChildren(...fields);
    this.element.querySelector("details").hidden = !fields.length;
  }

  #field(name, type, usual) {
    const label = document.createElement("label");
    label.append(name);
    const field = document.createElement(type === "bool" ? "select" : "input");
    const shown = usual === null ? "by itself" : typeof usual === "string" ? usual : JSON.stringify(usual);
    if (type === "bool") {
      field.append(new Option(shown, ""), new Option(!usual, !usual));
    } else {
      field.placeholder = shown;
      field.autocomplete = "off";
      field.title = type;
    }
    field.name = name;
    label.append(field);
    return label;
  }
}

/** What is written in a field: JSON, or else a word, as --arg reads it. */
function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
