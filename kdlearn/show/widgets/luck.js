function subsets(size, n) {
  if (n === 0) return [[]];
  if (size < n) return [];
  return [...subsets(size - 1, n), ...subsets(size - 1, n - 1).map((rest) => [...rest, size - 1])];
}

start("luck", (live, data) => {
  const count = data.seeds.length;
  const controls = add(live, "div", { class: "kd-controls" });
  const picks = data.start.map((method, k) => select(controls, ["First method", "Second method"][k], data.methods, method, draw));
  const n = slider(controls, "Seeds of each", [1, count, 1], 1, draw);
  const paired = tick(controls, "Paired: the same seeds for both", false, draw);
  const again = button(controls, "Draw seeds", () => { drawn = (drawn * 16807) % 2147483647; draw(); });
  let drawn = 12345;

  const plot = shape(live, "svg", { class: "kd-chart", viewBox: "0 0 340 112", role: "img" });
  const rows = [0, 1].map((k) => {
    const y = 34 + 44 * k;
    shape(plot, "line", { class: "kd-rule", x1: 10, x2: 330, y1: y, y2: y });
    return {
      y, name: shape(plot, "text", { x: 10, y: y - 12 }),
      dots: data.seeds.map(() => shape(plot, "circle", { class: "kd-dot", r: 6, cy: y })),
      mean: shape(plot, "line", { class: "kd-mark", y1: y - 11, y2: y + 11 }),
    };
  });
  const ends = [0, 1].map((k) => shape(plot, "text", { x: k ? 330 : 10, y: 108, "text-anchor": k ? "end" : "start" }));
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  const drawing = add(line, "span", {});
  const all = add(line, "b", {});
  const lost = add(line, "data", { class: "kd-lost" });
  const ways = add(line, "span", {});
  add(live, "p", { class: "kd-note" },
    "Dots: the " + count + " seeds of the table. Full dots: the seeds that were drawn; upright stroke: their mean. " +
    "Counted, not simulated: every choice of seeds once. Without pairing each method has seeds of its own.");

  const mean = (values, chosen) => chosen.reduce((sum, i) => sum + values[i], 0) / chosen.length;

  function draw() {
    const size = Number(n.input.value);
    const sets = subsets(count, size);
    const sides = picks.map((pick) => data.values[Number(pick.value)]);
    const whole = sides.map((values) => mean(values, data.seeds.map((_, i) => i)));
    const better = whole[0] >= whole[1] ? 0 : 1;
    const gap = (a, b) => (mean(sides[0], a) - mean(sides[1], b)) * (better ? -1 : 1);
    const cases = paired.checked
      ? sets.map((each) => gap(each, each))
      : sets.flatMap((a) => sets.map((b) => gap(a, b)));
    // Table values have 4 decimals: what is nearer than that is a tie.
    const wrong = cases.filter((value) => value < -1e-6).length;
    const ties = cases.filter((value) => Math.abs(value) <= 1e-6).length;

    const first = sets[drawn % sets.length];
    const chosen = [first, paired.checked ? first : sets[Math.floor(drawn / 64) % sets.length]];
    const flat = sides.flat();
    const low = Math.min(...flat), high = Math.max(...flat);
    const x = (value) => 16 + (high > low ? (value - low) / (high - low) : 0.5) * 308;
    rows.forEach((row, k) => {
      row.name.textContent = data.methods[Number(picks[k].value)];
      row.dots.forEach((dot, i) => {
        dot.setAttribute("cx", x(sides[k][i]));
        dot.setAttribute("class", "kd-dot " + (chosen[k].includes(i) ? ["kd-first", "kd-second"][k] : "kd-hollow"));
      });
      const at = x(mean(sides[k], chosen[k]));
      row.mean.setAttribute("x1", at);
      row.mean.setAttribute("x2", at);
    });
    ends[0].textContent = low.toFixed(1);
    ends[1].textContent = high.toFixed(1);
    const names = rows.map(({ name }) => name.textContent);
    plot.setAttribute("aria-label", data.metric + " of " + names.join(" and ") + ", a dot for each seed");
    n.say(String(size));
    const told = (values, each) => mean(values, each).toFixed(1) + " (seed" + (size > 1 ? "s " : " ") +
      each.map((i) => data.seeds[i]).join(", ") + ")";
    drawing.textContent = "This draw: " + names[0] + " " + told(sides[0], chosen[0]) + ", " + names[1] + " " + told(sides[1], chosen[1]) + ". ";
    if (whole[0] === whole[1]) {
      all.textContent = "Over all seeds the two are equal.";
      lost.textContent = ways.textContent = "";
      return;
    }
    all.textContent = names[1 - better] + ", worse over all " + count + " seeds, wins in ";
    put(lost, wrong, 0);
    ways.textContent = " of " + cases.length + (cases.length > 1 ? " draws" : " draw") + " (" + (100 * wrong / cases.length).toFixed(0) + "\u00a0%)" +
      (ties ? ", and ties in " + ties : "") + ".";
  }
  draw();
});
