// Samples on a canvas: images in a grid as difftool lays it out, points in the plane as dots.

const PADDING = 2; // pixels around an image
const PLANE = 512; // pixels of the picture of points
const REACH = 1.1; // of it, over the farthest point

/** Draw images, uint8 [n, h, w, c], as `difftool sample --out grid.png` does. */
export function drawGrid(canvas, images, n, [channels, height, width]) {
  const columns = Math.ceil(Math.sqrt(n));
  canvas.width = columns * (width + PADDING) + PADDING;
  canvas.height = Math.ceil(n / columns) * (height + PADDING) + PADDING;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const tile = context.createImageData(width, height);
  const pixels = width * height;
  for (let i = 0; i < n; i++) {
    for (let p = 0; p < pixels; p++) {
      for (let c = 0; c < 3; c++) {
        tile.data[4 * p + c] = images[(i * pixels + p) * channels + (channels === 3 ? c : 0)];
      }
      tile.data[4 * p + 3] = 255;
    }
    const x = PADDING + (i % columns) * (width + PADDING);
    const y = PADDING + Math.floor(i / columns) * (height + PADDING);
    context.putImageData(tile, x, y);
  }
}

/** Samples, float32 [n, c, h, w] in [low, high], as images, uint8 [n, h, w, c]. */
export function toImages(samples, n, [channels, height, width], [low, high]) {
  const images = new Uint8ClampedArray(samples.length); // it rounds half to even, and clamps
  const pixels = height * width;
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < channels; c++) {
      for (let p = 0; p < pixels; p++) {
        const value = samples[(i * channels + c) * pixels + p];
        images[(i * pixels + p) * channels + c] = ((value - low) * 255) / (high - low);
      }
    }
  }
  return images;
}

/** Draw points, float32 [n, 2], around the middle of the plane. */
export function drawPoints(canvas, samples) {
  canvas.width = canvas.height = PLANE;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, PLANE, PLANE);
  const far = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  const scale = PLANE / (2 * REACH * far);
  context.fillStyle = "#2457c5";
  for (let i = 0; i < samples.length; i += 2) {
    context.beginPath();
    context.arc(PLANE / 2 + scale * samples[i], PLANE / 2 - scale * samples[i + 1], 2, 0, 7);
    context.fill();
  }
}
