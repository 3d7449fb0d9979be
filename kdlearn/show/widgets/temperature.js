function digits(p) {
  return p >= 0.00005 || p === 0 ? p.toFixed(4) : p.toExponential(0);
}

start("temperature", (live, data) => {
  const controls = add(live, "div", { class: "kd-controls" });
  const pixels = data.images && unpack(data.images);
  const thumb = pixels && add(controls, "canvas", {
    class: "kd-thumb", role: "img", height: data.size[1], width: data.size[2],
  });
  const sample = data.logits.length > 1 &&
    select(controls, "Sample", data.logits.map((_, i) => i + 1), 0, draw);
  const temperature = slider(controls, "Temperature T", [0, data.temperatures.length - 1, 1], data.start, draw);

  const bars = add(live, "div", { class: "kd-bars" });
  const rows = data.names.map((name) => {
    add(bars, "span", { class: "kd-name" }, name);
    const svg = shape(bars, "svg", { "aria-hidden": "true" });
    shape(svg, "rect", { class: "kd-track", width: "100%", height: 18 });
    const bar = shape(svg, "rect", { class: "kd-bar", y: 1, height: 16 });
    const mark = shape(svg, "line", { class: "kd-mark", y1: 0, y2: 18 });
    return { bar, mark, value: add(bars, "span", { class: "kd-value" }) };
  });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "Bars: softmax(z / T), from 0 to 1. Upright strokes: the same at T = 1. Blue: most likely. Orange: second.");

  function draw() {
    const n = sample ? Number(sample.value) : 0;
    const t = data.temperatures[Number(temperature.input.value)];
    const logits = data.logits[n];
    const p = softmax(logits, t);
    const plain = softmax(logits, 1);
    const order = p.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b);
    rows.forEach(({ bar, mark, value }, i) => {
      bar.setAttribute("width", 100 * p[i] + "%");
      bar.setAttribute("class", "kd-bar" + (i === order[0] ? " kd-first" : i === order[1] ? " kd-second" : ""));
      mark.setAttribute("x1", 100 * plain[i] + "%");
      mark.setAttribute("x2", 100 * plain[i] + "%");
      value.textContent = digits(p[i]);
    });
    temperature.say(String(t));
    const nats = entropy(p);
    const say = (i) => data.names[i] + " (" + digits(p[i]) + ")";
    line.textContent = "T = " + t + ": entropy " + nats.toFixed(3) + " nats, " +
      (100 * nats / Math.log(p.length)).toFixed(1) + "\u00a0% of the maximum. Most likely: " +
      say(order[0]) + "; second best: " + say(order[1]) + ".";
    if (thumb) {
      thumb.getContext("2d").drawImage(photograph(pixels, data.size, n), 0, 0);
      thumb.setAttribute("aria-label", "image of sample " + (n + 1));
    }
  }
  draw();
});
