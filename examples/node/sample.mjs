// Digits into a picture, by Node and sampler.onnx alone.
//
//   difftool compile ddpm-mnist --portable --out sampler.onnx
//   node sample.mjs sampler.onnx digits.pgm [SEED] [COUNT] [program.bin]
//
// onnxruntime-node, which is faster, is used in the same way: change the first line. A picture of
// three channels is a PPM.

import * as ort from "onnxruntime-web";
import { readFile, writeFile } from "node:fs/promises";

const [model, out, seed = "0", count = "1", program] = process.argv.slice(2);

const session = await ort.InferenceSession.create(new Uint8Array(await readFile(model)));
const feeds = {
  seed: new ort.Tensor("uint64", BigUint64Array.of(BigInt(seed)), [1]),
  n: new ort.Tensor("int64", BigInt64Array.of(BigInt(count)), [1]),
  ...(program ? tensorsOf(await readFile(program)) : {}),
};
// This binding demands every input; one that is empty has its default.
const integers = ["first_sample", "label", "row", "rows"];
for (const name of session.inputNames) {
  feeds[name] ??= new ort.Tensor(integers.includes(name) ? "int64" : "float32", [], [0]);
}
const { images } = await session.run(feeds);

// The images stand below each other: [n, height, width, channels] is one picture already.
const [n, height, width, channels] = images.dims;
const header = `${channels === 1 ? "P5" : "P6"}\n${width} ${n * height}\n255\n`;
await writeFile(out, Buffer.concat([Buffer.from(header), images.data]));

// A file of `difftool program --out program.bin`, in the layout of safetensors.
function tensorsOf(file) {
  const length = Number(file.readBigUInt64LE());
  const { __metadata__, ...entries } = JSON.parse(file.toString("utf8", 8, 8 + length));
  const data = file.subarray(8 + length);
  return Object.fromEntries(
    Object.entries(entries).map(([name, { shape, data_offsets }]) => {
      const bytes = Uint8Array.from(data.subarray(...data_offsets));
      return [name, new ort.Tensor("float32", new Float32Array(bytes.buffer), shape)];
    }),
  );
}
