"use strict";

function add(parent, name, attributes, text) {
  const node = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
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

function slider(parent, title, last, value, changed) {
  const label = add(parent, "label", { class: "kd-slider" }, title + " ");
  const output = add(label, "span", { class: "kd-setting" });
  const input = add(label, "input", {
    type: "range", min: 0, max: last, step: 1, value: value,
    "aria-label": title, "data-lm-suppress-shortcuts": "true", autocomplete: "off",
  });
  input.addEventListener("input", changed);
  return { input, say: (text) => { output.textContent = text; input.setAttribute("aria-valuetext", text); } };
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
