const NAMES = ["forward KL(teacher ‖ student)", "reverse KL(student ‖ teacher)", "JSD"];
const COLORS = ["kd-first", "kd-second", "kd-third"];
const ROOT = Math.log(Math.sqrt(2 * Math.PI));

start("divergence", (live, data) => {
  const [x0, x1, dx] = data.grid;
  const points = Array.from({ length: Math.round((x1 - x0) / dx) + 1 }, (_, i) => x0 + i * dx);
  const normal = (x, mean, width) => -0.5 * ((x - mean) / width) ** 2 - Math.log(width) - ROOT;
  const either = (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
  const teacher = points.map((x) => either(
    Math.log(data.shares[0]) + normal(x, data.means[0], data.width),
    Math.log(data.shares[1]) + normal(x, data.means[1], data.width)));
  const sure = teacher.map(Math.exp);

  function divergences(mean, width, beta) {
    let forward = 0, reverse = 0, middle = 0;
    points.forEach((x, i) => {
      const student = normal(x, mean, width), q = Math.exp(student), p = sure[i];
      forward += p * (teacher[i] - student);
      reverse += q * (student - teacher[i]);
      const mix = either(Math.log(beta) + teacher[i], Math.log(1 - beta) + student);
      middle += beta * p * (teacher[i] - mix) + (1 - beta) * q * (student - mix);
    });
    return [forward * dx, reverse * dx, middle * dx];
  }

  const controls = add(live, "div", { class: "kd-controls" });
  const mean = slider(controls, "Mean of the student", data.means_of, data.start[0], draw);
  const width = slider(controls, "Width of the student", data.widths_of, data.start[1], draw);
  const beta = select(controls, "β of the JSD", data.betas, 1, draw);
  const best = add(live, "div", { class: "kd-choice", role: "group", "aria-label": "Put the student at the optimum" });
  NAMES.forEach((name, k) => button(best, "Best " + name.split("(")[0], () => {
    [mean.input.value, width.input.value] = optimum(k);
    draw();
  }));

  const densities = chart(live, [-6, 6], [0, 0.6], "Densities of teacher and student; drag the student", { x: [-4, -2, 0, 2, 4], y: [0, 0.2, 0.4, 0.6] });
  densities.svg.classList.add("kd-drag");
  const seen = points.map((x, i) => [x, i]).filter(([x]) => Math.abs(x) <= 6);
  densities.curve("")(seen.map(([x, i]) => [x, sure[i]]));
  const student = densities.curve("kd-ink");
  const [low, high] = data.means_of;
  const below = chart(live, [-6, 6], [0, 4], "Divergences against the mean of the student, at this width", { x: [-4, -2, 0, 2, 4], y: [0, 1, 2, 3, 4] });
  const cursor = shape(below.svg, "line", { class: "kd-cursor" });
  const curves = COLORS.map((color) => below.curve(color));
  const lowest = COLORS.map((color) => below.dot(color + " kd-hollow"));
  const here = COLORS.map((color) => below.dot(color));
  const list = add(live, "ul", { class: "kd-list" });
  const told = NAMES.map((name, k) => {
    const item = add(list, "li", {});
    add(item, "span", { class: "kd-key " + COLORS[k] }, name + " ");
    const value = add(item, "data", { class: "kd-value" });
    return { value, rest: add(item, "span", {}) };
  });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "Upper picture: gray, the teacher with two bumps; the other, the student with one. Lower picture: the divergences for every mean " +
    "at the present width, in nats; a hollow dot is a curve's lowest point, a full one is where you are.");

  function optimum(k) { return data.best[k === 2 ? 2 + Number(beta.value) : k]; }

  function draw() {
    const m = Number(mean.input.value), s = Number(width.input.value), b = data.betas[Number(beta.value)];
    mean.say(m.toFixed(1));
    width.say(s.toFixed(1));
    student(seen.map(([x]) => [x, Math.exp(normal(x, m, s))]));
    const means = Array.from({ length: Math.round((high - low) * 10) + 1 }, (_, i) => low + i / 10);
    const swept = means.map((at) => divergences(at, s, b));
    const values = divergences(m, s, b);
    [["x1", m], ["x2", m]].forEach(([key, at]) => cursor.setAttribute(key, below.x(at)));
    cursor.setAttribute("y1", below.y(0));
    cursor.setAttribute("y2", below.y(4));
    values.forEach((value, k) => {
      const column = swept.map((each) => each[k]);
      curves[k](means.map((at, i) => [at, column[i]]));
      const least = Math.min(...column);
      lowest[k](means[column.indexOf(least)], least);
      here[k](m, value);
      put(told[k].value, value, 3);
      const [bestMean, bestWidth, bestValue] = optimum(k);
      told[k].rest.textContent = " nats; lowest " + bestValue.toFixed(3) + " at mean " + bestMean.toFixed(1) + ", width " + bestWidth.toFixed(1);
    });
    line.textContent = "Student at " + m.toFixed(1) + ", width " + s.toFixed(1) + ": forward " + values[0].toFixed(3) +
      ", reverse " + values[1].toFixed(3) + ", JSD (β = " + b + ") " + values[2].toFixed(3) + " nats.";
  }

  function drag(event) {
    if (!event.buttons) return;
    mean.input.value = densities.inverse(event);
    draw();
  }
  densities.svg.addEventListener("pointerdown", (event) => { densities.svg.setPointerCapture(event.pointerId); drag(event); });
  densities.svg.addEventListener("pointermove", drag);
  draw();
});
