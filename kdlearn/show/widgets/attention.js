const SIDE = 320;

start("attention", (live, data) => {
  const pixels = unpack(data.images);
  const [, height, width] = data.size;
  const maps = data.maps.map((layers) => layers.map((map) => ({ ...map, bytes: unpack(map.values) })));

  const controls = add(live, "div", { class: "kd-controls" });
  const image = select(controls, "Image", Array.from({ length: data.count }, (_, i) => i + 1), 0, draw);
  const layer = select(controls, "Layer", data.layers, data.layers.length - 1, draw);
  const strength = slider(controls, "Strength of the overlay", [0, 20, 1], 12, draw);

  const grid = add(live, "div", { class: "kd-models" });
  const panels = data.models.map((name) => {
    const panel = add(grid, "div", {});
    const canvas = add(panel, "canvas", {
      role: "img", width: SIDE, height: Math.round(SIDE * height / width),
    });
    const caption = add(panel, "div", { class: "kd-caption" });
    add(caption, "b", {}, name);
    return { canvas, verdict: add(caption, "span", {}) };
  });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  const seen = add(line, "span", {});
  const spoken = add(line, "span", { class: "kd-hidden" });
  add(live, "p", { class: "kd-note" },
    "Each map is scaled to its own maximum: dark is nothing, light yellow is most." +
    (data.boxes ? " Blue frame: the true box." : ""));

  function drawMap(canvas, { bytes, size: [h, w] }, n) {
    const first = n * h * w;
    const value = (i) => (bytes[i >> 1] >> (i % 2 ? 0 : 4)) & 15;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(photograph(pixels, data.size, n), 0, 0, canvas.width, canvas.height);
    context.globalAlpha = Number(strength.input.value) / 20;
    context.imageSmoothingEnabled = true;
    context.drawImage(picture(h, w, (i) => heat(value(first + i) / 15)), 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
  }

  function drawBox(canvas, [x0, y0, x1, y1]) {
    const context = canvas.getContext("2d");
    const frame = [x0 * canvas.width, y0 * canvas.height, (x1 - x0) * canvas.width, (y1 - y0) * canvas.height];
    [["#000000", 7], ["#56b4e9", 4]].forEach(([color, thick]) => {
      context.strokeStyle = color;
      context.lineWidth = thick;
      context.strokeRect(...frame);
    });
  }

  function draw() {
    const n = Number(image.value);
    const k = Number(layer.value);
    const place = data.layers[k] + ", image " + (n + 1);
    strength.say(5 * Number(strength.input.value) + " %");
    panels.forEach(({ canvas, verdict }, m) => {
      drawMap(canvas, maps[m][k], n);
      if (data.boxes) {
        drawBox(canvas, data.boxes[n]);
        verdict.textContent = tied(data.verdicts[m][k][n]);
      }
      canvas.setAttribute("aria-label", "attention map of " + data.models[m] + ", " + place);
    });
    seen.textContent = "Image " + (n + 1) + ", layer " + data.layers[k] + "." + (data.boxes
      ? " The box covers " + tied(data.areas[n]) + " of the image: the energy that a map with no preference has in it."
      : "");
    spoken.textContent = data.boxes
      ? panels.map(({ verdict }, m) => " " + data.models[m] + ": " + verdict.textContent + ".").join("")
      : "";
  }
  draw();
});
