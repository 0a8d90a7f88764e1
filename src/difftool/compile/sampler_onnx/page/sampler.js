// sampler.onnx in JavaScript: what goes in, and programs out of files. Needs nothing but a runtime.

const INTEGERS = new Set(["first_sample", "label", "row", "rows"]);

/** sampler.onnx, opened. `ort` is onnxruntime-web or onnxruntime-node, `session` its session. */
export class Sampler {
  constructor(ort, session) {
    this.ort = ort;
    this.session = session;
  }

  /**
   * Draw `n` samples of `seed`, a BigInt. `given` are tensors for any other input, by name. This
   * binding demands every input, so what is not given is fed empty, which means its default.
   */
  run(seed, n, given = {}) {
    const { Tensor } = this.ort;
    const feeds = {
      seed: new Tensor("uint64", BigUint64Array.of(seed), [1]),
      n: this.integers(n),
      ...given,
    };
    for (const name of this.session.inputNames) {
      feeds[name] ??= new Tensor(INTEGERS.has(name) ? "int64" : "float32", [], [0]);
    }
    return this.session.run(feeds);
  }

  /** int64 [numbers.length] */
  integers(...numbers) {
    return new this.ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
  }

  /** float32 [numbers.length] */
  floats(...numbers) {
    return new this.ort.Tensor("float32", Float32Array.from(numbers), [numbers.length]);
  }

  /** The tensors of a file that `difftool program --out program.bin` wrote, an ArrayBuffer. */
  program(buffer) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    delete header.__metadata__;
    const tensors = {};
    for (const [name, { shape, data_offsets: [begin, end] }] of Object.entries(header)) {
      const data = new Float32Array(buffer.slice(8 + length + begin, 8 + length + end));
      tensors[name] = new this.ort.Tensor("float32", data, shape);
    }
    return tensors;
  }
}
