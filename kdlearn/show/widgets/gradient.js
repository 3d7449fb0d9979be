start("gradient", (live, data) => {
  const C = data.names.length;
  const controls = add(live, "div", { class: "kd-controls" });
  const temperature = slider(controls, "Temperature T", [0, data.temperatures.length - 1, 1], data.start, draw);
  const weight = slider(controls, "Weight w of the soft term", [0, 1, 0.05], data.weight, draw);
  const squared = tick(controls, "Factor T²", true, draw);

  const classes = add(live, "div", { class: "kd-classes" });
  const rows = data.names.map((name, i) => {
    const box = add(classes, "div", { class: "kd-class", role: "group", "aria-label": "class " + name });
    add(box, "b", {}, name + (i === data.label ? " (the label)" : ""));
    const duo = add(box, "div", { class: "kd-duo" });
    const logits = ["student", "teacher"].map((side) =>
      slider(duo, side + "'s logit", [...data.range, 0.1], data[side][i], draw, name));
    const svg = shape(box, "svg", { "aria-hidden": "true" });
    shape(svg, "rect", { class: "kd-track", width: "100%", height: 26 });
    drag(svg, (x, first) => pull(i, x, first));
    const parts = {
      bar: shape(svg, "rect", { class: "kd-bar kd-first", y: 1, height: 24 }),
      mark: shape(svg, "line", { class: "kd-curve kd-second", y1: 0, y2: 26 }),
      arrow: shape(svg, "line", { class: "kd-arrow", y1: 13, y2: 13 }),
      head: shape(svg, "circle", { r: 4, cy: 13, fill: "currentColor" }),
    };
    const line = add(box, "div", { class: "kd-note" });
    const say = (title) => {
      add(line, "span", {}, title);
      return add(line, "data", { class: "kd-value" });
    };
    return {
      logits, ...parts,
      student: say("p_s "), teacher: say(", p_t "), gap: say(", p_s − p_t "),
      soft: say("; gradient of the soft term "), hard: say(", of the labels "),
    };
  });
  const share = shape(add(live, "div", { class: "kd-class" }), "svg", { "aria-hidden": "true" });
  const ofSoft = shape(share, "rect", { class: "kd-bar kd-second", height: 26 });
  const ofHard = shape(share, "rect", { class: "kd-bar", height: 26 });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "In each row: blue bar, the student's softened probability; orange stroke, the teacher's. Drag either: its logit follows. The pin starts at the " +
    "student's and points where a descent step pushes. Last bar: orange, the soft term's share of the gradient; gray, the labels'.");

  // The nearer of the two is held; its logit becomes the one whose softmax is where the pointer is.
  let held = 0;
  function pull(i, x, first) {
    const t = data.temperatures[Number(temperature.input.value)];
    const scaled = [0, 1].map((k) => rows.map(({ logits }) => Number(logits[k].input.value) / t));
    if (first) {
      const [p, q] = scaled.map((z) => softmax(z, 1)[i]);
      held = Math.abs(x - p) <= Math.abs(x - q) ? 0 : 1;
    }
    const others = scaled[held].filter((_, j) => j !== i).reduce((sum, z) => sum + Math.exp(z), 0);
    const share = Math.min(Math.max(x, 1e-6), 1 - 1e-6);
    rows[i].logits[held].input.value = t * Math.log(share / (1 - share) * others);
    draw();
  }

  function draw() {
    const t = data.temperatures[Number(temperature.input.value)];
    const w = Number(weight.input.value);
    const [student, teacher] = [0, 1].map((k) => rows.map(({ logits }) => Number(logits[k].input.value)));
    const p = softmax(student, t), q = softmax(teacher, t), plain = softmax(student, 1);
    const factor = squared.checked ? t : 1 / t;
    const soft = p.map((value, i) => w * factor * (value - q[i]));
    const hard = plain.map((value, i) => (1 - w) * (value - (i === data.label ? 1 : 0)));
    rows.forEach((row, i) => {
      [student[i], teacher[i]].forEach((z, k) => row.logits[k].say(z.toFixed(1)));
      row.bar.setAttribute("width", 100 * p[i] + "%");
      [["x1", q[i]], ["x2", q[i]]].forEach(([key, value]) => row.mark.setAttribute(key, 100 * value + "%"));
      row.arrow.setAttribute("x1", 100 * p[i] + "%");
      row.arrow.setAttribute("x2", 100 * q[i] + "%");
      row.head.setAttribute("cx", 100 * q[i] + "%");
      put(row.student, p[i], 3);
      put(row.teacher, q[i], 3);
      put(row.gap, p[i] - q[i], 3, true);
      put(row.soft, soft[i], 4, true);
      put(row.hard, hard[i], 4, true);
    });
    const [a, b] = [soft, hard].map((g) => Math.hypot(...g));
    const part = a + b > 0 ? a / (a + b) : 0;
    ofSoft.setAttribute("width", 100 * part + "%");
    ofHard.setAttribute("x", 100 * part + "%");
    ofHard.setAttribute("width", (a + b > 0 ? 100 * (1 - part) : 0) + "%");
    temperature.say(String(t));
    weight.say(w.toFixed(2));
    line.textContent = "T = " + t + ", " + (squared.checked ? "with" : "without") + " T², w = " + w.toFixed(2) +
      ": length of the soft term's gradient " + a.toFixed(4) + ", of the labels' " + b.toFixed(4) + ". " +
      (a + b > 0 ? "The soft term has " + (100 * part).toFixed(0) + "\u00a0% of the two." : "Both are 0.");
  }
  draw();
});
