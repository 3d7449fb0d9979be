start("query", (live, data) => {
  const L = data.tokens.length;
  const controls = add(live, "div", { class: "kd-controls" });
  const head = data.queries.length > 1 &&
    select(controls, "Head", data.queries.map((_, h) => h + 1), 0, draw);
  const causal = tick(controls, "Causal mask", false, draw);
  const scaled = tick(controls, "Divide by √d", true, draw);
  add(live, "div", { class: "kd-note" }, "The query comes from:");
  const query = choice(live, "Token that asks", data.tokens, L - 1, draw);

  const pair = add(live, "div", { class: "kd-models" });
  const side = 300 / L;
  const grid = shape(add(pair, "div", {}), "svg", { class: "kd-chart", viewBox: "0 0 300 300", role: "img" });
  const cells = data.tokens.map((_, i) => data.tokens.map((_, j) =>
    shape(grid, "rect", { class: "kd-cell", x: j * side, y: i * side, width: side, height: side })));
  const frame = shape(grid, "rect", { class: "kd-frame", x: 0, width: 300, height: side });
  const bars = add(add(pair, "div", {}), "div", { class: "kd-bars" });
  const rows = data.tokens.map((token) => {
    add(bars, "span", { class: "kd-name" }, token);
    const svg = shape(bars, "svg", { "aria-hidden": "true" });
    shape(svg, "rect", { class: "kd-track", width: "100%", height: 18 });
    return { bar: shape(svg, "rect", { class: "kd-bar", y: 1, height: 16 }), value: add(bars, "data", { class: "kd-value" }) };
  });
  const out = add(live, "p", { class: "kd-note" });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "Square: a row for each token that asks, a column for each that is asked; dark is 0, light yellow is 1. Framed: the chosen row, whose weights stand beside it.");

  function weights(h) {
    const d = data.queries[h][0].length;
    const factor = scaled.checked ? 1 / Math.sqrt(d) : 1;
    return data.queries[h].map((q, i) => softmax(data.keys[h].map((k, j) =>
      causal.checked && j > i ? -Infinity : factor * q.reduce((sum, value, c) => sum + value * k[c], 0)), 1));
  }

  function draw() {
    const h = head ? Number(head.value) : 0;
    const all = weights(h);
    const i = query.value, row = all[i];
    all.forEach((each, a) => each.forEach((w, b) => cells[a][b].setAttribute("fill", "rgb(" + heat(w).map(Math.round) + ")")));
    frame.setAttribute("y", i * side);
    const top = row.indexOf(Math.max(...row));
    rows.forEach(({ bar, value }, j) => {
      bar.setAttribute("width", 100 * row[j] + "%");
      bar.setAttribute("class", "kd-bar" + (j === top ? " kd-first" : ""));
      put(value, row[j], 4);
    });
    const mixed = data.values[h][0].map((_, c) => row.reduce((sum, w, j) => sum + w * data.values[h][j][c], 0));
    out.textContent = "What comes out, Σ weight × value: ";
    mixed.forEach((value, c) => {
      put(add(out, "data", { class: "kd-out" }), value, 3);
      out.append(c < mixed.length - 1 ? ", " : "");
    });
    grid.setAttribute("aria-label", "attention weights of head " + (h + 1));
    const visible = causal.checked ? i + 1 : L;
    line.textContent = "Head " + (h + 1) + (causal.checked ? ", causal" : "") + (scaled.checked ? "" : ", not divided by √d") +
      ": “" + data.tokens[i] + "” looks most at “" + data.tokens[top] + "” (" + row[top].toFixed(3) + "). Entropy " +
      entropy(row).toFixed(3) + " of at most " + Math.log(visible).toFixed(3) + " nats.";
  }
  draw();
});
