"use strict";

const SVG = "http://www.w3.org/2000/svg";

function add(parent, name, attributes, text) {
  const node = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

function shape(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

function select(parent, title, options, chosen, changed) {
  const label = add(parent, "label", {}, title);
  // Only on the input itself does the attribute keep JupyterLab away from the arrow keys.
  const input = add(label, "select", { "aria-label": title, "data-lm-suppress-shortcuts": "true" });
  options.forEach((text, i) => add(input, "option", { value: i }, text));
  input.value = chosen;
  input.addEventListener("change", changed);
  return input;
}

function slider(parent, title, [first, last, step], value, changed, of) {
  const label = add(parent, "label", { class: "kd-slider" }, title + " ");
  const output = add(label, "span", { class: "kd-setting" });
  const input = add(label, "input", {
    type: "range", min: first, max: last, step: step, value: value,
    "aria-label": title + (of ? ", " + of : ""), "data-lm-suppress-shortcuts": "true", autocomplete: "off",
  });
  input.addEventListener("input", changed);
  return { input, say: (text) => { output.textContent = text; input.setAttribute("aria-valuetext", text); } };
}

function tick(parent, title, on, changed) {
  const label = add(parent, "label", { class: "kd-tick" });
  const input = add(label, "input", {
    type: "checkbox", "data-lm-suppress-shortcuts": "true", autocomplete: "off",
  });
  add(label, "span", {}, title);
  input.checked = on;
  input.addEventListener("change", changed);
  return input;
}

function button(parent, title, pressed) {
  const node = add(parent, "button", { type: "button", class: "kd-button" }, title);
  node.addEventListener("click", pressed);
  return node;
}

// Buttons of which one is chosen.
function choice(parent, title, options, chosen, changed) {
  const group = add(parent, "div", { class: "kd-choice", role: "group", "aria-label": title });
  const nodes = options.map((text, i) => button(group, text, () => { mark(i); changed(); }));
  function mark(i) {
    nodes.forEach((node, k) => node.setAttribute("aria-pressed", k === i));
    group.chosen = i;
  }
  mark(chosen);
  return { mark, get value() { return group.chosen; } };
}

// A number as it is read, and in full beside it.
function put(node, value, digits, sign) {
  const text = value.toFixed(digits);
  const shown = Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
  node.textContent = (sign && value > 0 && Number(text) !== 0 ? "+" : "") + shown;
  node.setAttribute("value", value);
}

function softmax(logits, temperature) {
  const top = Math.max(...logits);
  const powers = logits.map((z) => Math.exp((z - top) / temperature));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / total);
}

function entropy(p) {
  return p.reduce((sum, value) => (value > 0 ? sum - value * Math.log(value) : sum), 0);
}

// Axes for curves: x from x0 to x1, y from y0 to y1, in a box that fits a phone.
function chart(parent, [x0, x1], [y0, y1], title, marks) {
  const width = 340, height = 170, left = 34, foot = 22;
  const svg = shape(parent, "svg", { class: "kd-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const x = (value) => left + (value - x0) / (x1 - x0) * (width - left - 8);
  const y = (value) => height - foot - (Math.min(Math.max(value, y0), y1) - y0) / (y1 - y0) * (height - foot - 8);
  marks.y.forEach((value) => {
    shape(svg, "line", { class: "kd-rule", x1: x(x0), x2: x(x1), y1: y(value), y2: y(value) });
    shape(svg, "text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, value);
  });
  marks.x.forEach((value) => shape(svg, "text", { x: x(value), y: height - 6, "text-anchor": "middle" }, value));
  const inverse = (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * width;
    return x0 + (at - left) / (width - left - 8) * (x1 - x0);
  };
  // A curve that leaves the box is cut there.
  const path = (points) => points.map(([a, b], i) => b > y1 ? "" :
    (i && points[i - 1][1] <= y1 ? "L" : "M") + x(a).toFixed(2) + " " + y(b).toFixed(2)).join("");
  return {
    svg, x, y, inverse,
    curve: (kind) => {
      const node = shape(svg, "path", { class: "kd-curve " + kind });
      return (points) => node.setAttribute("d", path(points));
    },
    dot: (kind) => {
      const node = shape(svg, "circle", { class: "kd-dot " + kind, r: 5 });
      return (a, b) => { node.setAttribute("cx", x(a)); node.setAttribute("cy", y(b)); };
    },
  };
}

// A pointer drags along an SVG: `moved` gets its place, from 0 to 1, and whether the drag begins.
function drag(svg, moved) {
  svg.classList.add("kd-drag");
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); moved(place(event), true); });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) moved(place(event), false); });
}

// Keeps a number and its "%" on one line.
function tied(text) {
  return text.replaceAll(" %", "\u00a0%");
}

function unpack(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Colors of `count` pixels from `first` on, put on a canvas of their own.
function picture(height, width, color) {
  const canvas = document.createElement("canvas");
  canvas.height = height;
  canvas.width = width;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) pixels.data.set([...color(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// Five stops of the color map "inferno"; as in kdlearn.show.plots.overlays.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function heat(value) {
  const at = Math.min(value * 4, 3.999);
  const k = Math.floor(at);
  return [0, 1, 2].map((c) => STOPS[k][c] + (at - k) * (STOPS[k + 1][c] - STOPS[k][c]));
}

// Image number n of bytes in the order (N, channels, height, width).
function photograph(bytes, [channels, height, width], n) {
  const area = height * width;
  const start = n * channels * area;
  return picture(height, width, (i) => [0, 1, 2].map((c) => bytes[start + (c % channels) * area + i]));
}

function start(kind, draw) {
  document.querySelectorAll('.kdfig[data-kdfig="' + kind + '"]:not([data-ready])').forEach((root) => {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const live = document.createElement("div");
    draw(live, data);
    root.appendChild(live);
    root.setAttribute("data-ready", "");
  });
}
