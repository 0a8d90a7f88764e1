// Pictures of samples: columns, a sheet of all of them, points in the plane.

const PADDING = 2; // pixels around an image, as difftool lays a grid out
const REACH = 1.1; // of the plane, over the farthest point
const SVG = "http://www.w3.org/2000/svg";

/** How many columns n tiles look best in: a little more than rows, and full rows if that is near. */
export function columnsFor(n) {
  const wanted = Math.sqrt(1.6 * n);
  const away = (columns) => Math.abs(columns - wanted);
  const full = Array.from({ length: n }, (_, index) => index + 1).filter((columns) => n % columns === 0);
  const nearest = full.reduce((best, columns) => (away(columns) < away(best) ? columns : best));
  return away(nearest) < Math.min(2, wanted / 2) ? nearest : Math.ceil(wanted);
}

/** A PNG of images on one white sheet, pixel for pixel that of `difftool sample --out grid.png`. */
export async function sheet(images) {
  const columns = Math.ceil(Math.sqrt(images.length));
  const [{ naturalWidth: width, naturalHeight: height }] = images;
  const canvas = document.createElement("canvas");
  canvas.width = columns * (width + PADDING) + PADDING;
  canvas.height = Math.ceil(images.length / columns) * (height + PADDING) + PADDING;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  images.forEach((image, index) => {
    const column = index % columns;
    const row = Math.floor(index / columns);
    context.drawImage(image, PADDING + column * (width + PADDING), PADDING + row * (height + PADDING));
  });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Points [n][2] as dots around the middle of the plane. */
export function scatter(points) {
  const far = REACH * Math.max(1e-6, ...points.flat().map(Math.abs));
  const svg = element("svg", { viewBox: "-100 -100 200 200", class: "scatter", role: "img" });
  svg.setAttribute("aria-label", `${points.length} points in the plane, each coordinate within ${far.toPrecision(2)}`);
  svg.append(element("path", { d: "M-100 0H100M0 -100V100", class: "axes" }));
  for (const [x, y] of points) {
    svg.append(element("circle", { cx: (100 * x) / far, cy: (-100 * y) / far, r: 1.6 }));
  }
  return svg;
}

/** An SVG element with attributes. */
export function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Save a Blob as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser has begun to read it when the next task runs, and not before.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
