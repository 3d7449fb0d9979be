start("bias", (live, data) => {
  const controls = add(live, "div", { class: "kd-controls" });
  const shift = slider(controls, "Added to the logit of the " + data.missing, data.shifts, 0, draw);
  const [low, high, step] = data.shifts;
  const shifts = Array.from({ length: data.recall[0].length }, (_, i) => low + i * step);
  const picture = chart(live, [low, high], [0, 100], "Recall of the missing class and accuracy on the others against the shift",
    { x: [low, 0, high], y: [0, 25, 50, 75, 100] });
  const cursor = shape(picture.svg, "line", { class: "kd-cursor", y1: picture.y(0), y2: picture.y(100) });
  const colors = ["kd-first", "kd-second", "kd-third"];
  const list = add(live, "ul", { class: "kd-list" });
  const rows = data.students.map((name, m) => {
    picture.curve(colors[m])(shifts.map((s, i) => [s, data.recall[m][i]]));
    picture.curve(colors[m] + " kd-dashed")(shifts.map((s, i) => [s, data.others[m][i]]));
    const dots = [picture.dot(colors[m]), picture.dot(colors[m] + " kd-hollow")];
    const item = add(list, "li", {});
    add(item, "b", { class: "kd-key " + colors[m] }, name);
    const say = (title) => { add(item, "span", {}, title); return add(item, "data", { class: "kd-value" }); };
    return { dots, recall: say(": recall of the " + data.missing + " "), others: say(" %, accuracy on the others "), all: say(" %, on all "), end: add(item, "span", {}, " %") };
  });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "Solid: share of the " + data.missing + "s that are recognized. Dashed: accuracy on all other classes. Both in per cent, against the shift.");

  function draw() {
    const value = Number(shift.input.value);
    const i = Math.round((value - low) / step);
    [["x1", value], ["x2", value]].forEach(([key, at]) => cursor.setAttribute(key, picture.x(at)));
    rows.forEach((row, m) => {
      row.dots[0](value, data.recall[m][i]);
      row.dots[1](value, data.others[m][i]);
      put(row.recall, data.recall[m][i], 1);
      put(row.others, data.others[m][i], 1);
      put(row.all, data.all[m][i], 1);
    });
    const told = (value > 0 ? "+" : "") + value.toFixed(1);
    shift.say(told);
    line.textContent = "Shift " + told + ": " + data.students.map((name, m) =>
      name + " knows " + data.recall[m][i].toFixed(1) + "\u00a0% of the " + data.missing + "s and " +
      data.others[m][i].toFixed(1) + "\u00a0% of the others").join("; ") + ".";
  }
  draw();
});
