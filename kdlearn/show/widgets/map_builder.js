const POWERS = [1, 2, 4];
const DISTANCES = ["mean over positions (authors' code)", "sum over positions", "norm, not squared (paper)"];

start("map_builder", (live, data) => {
  const [, height, width] = data.size;
  const P = height * width;
  const controls = add(live, "div", { class: "kd-controls" });
  const power = select(controls, "Power p", POWERS, POWERS.indexOf(2), draw);
  const join = select(controls, "Over channels", ["sum", "mean"], 0, draw);
  const distance = select(controls, "Distance", DISTANCES, 0, draw);
  const unit = tick(controls, "Each map to length 1", true, draw);

  const pair = add(live, "div", { class: "kd-pair" });
  const sides = ["student", "teacher"].map((side) => {
    const panel = add(pair, "div", { role: "group", "aria-label": side });
    const canvas = add(panel, "canvas", { class: "kd-map", role: "img", width, height });
    add(panel, "b", {}, side);
    const say = add(panel, "div", { class: "kd-note" });
    const channels = data[side].map((values, c) => {
      if (c === 0) panel.list = add(panel, "div", { class: "kd-channels" });
      const top = Math.max(...values.map(Math.abs), 1e-300);
      const node = button(panel.list, "", () => {
        node.setAttribute("aria-pressed", node.getAttribute("aria-pressed") !== "true");
        draw();
      });
      node.setAttribute("aria-pressed", "true");
      node.setAttribute("aria-label", "channel " + (c + 1) + " of the " + side);
      node.appendChild(picture(height, width, (i) => heat(Math.abs(values[i]) / top)));
      return { node, values };
    });
    return { side, canvas, say, channels };
  });
  const list = add(live, "ul", { class: "kd-list" });
  const number = (title) => {
    const item = add(list, "li", {}, title + " ");
    return add(item, "data", { class: "kd-value" });
  };
  const loss = number("distance");
  const cosine = number("cosine of the two maps");
  const identity = number("(2 − 2 cos) / P");
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  add(live, "p", { class: "kd-note" },
    "Tap a channel to leave it out. Dark is nothing, light yellow is most; each picture is scaled to its own maximum. P = " +
    P + " positions.");

  function energy({ channels }) {
    const on = channels.filter(({ node }) => node.getAttribute("aria-pressed") === "true");
    const p = POWERS[Number(power.value)];
    const sum = Array.from({ length: P }, (_, i) => on.reduce((total, { values }) => total + Math.abs(values[i]) ** p, 0));
    return { on: on.length, map: join.value === "1" ? sum.map((value) => value / Math.max(on.length, 1)) : sum };
  }

  function draw() {
    const parts = sides.map(energy);
    const lengths = parts.map(({ map }) => Math.hypot(...map));
    const maps = parts.map(({ map }, k) => unit.checked && lengths[k] > 0 ? map.map((value) => value / lengths[k]) : map);
    sides.forEach(({ side, canvas, say }, k) => {
      const top = Math.max(...maps[k], 1e-300);
      canvas.getContext("2d").drawImage(picture(height, width, (i) => heat(maps[k][i] / top)), 0, 0);
      canvas.setAttribute("aria-label", "attention map of the " + side);
      say.textContent = parts[k].on + " of " + data[side].length + " channels, length before " + lengths[k].toPrecision(3);
    });
    const square = maps[0].reduce((total, value, i) => total + (value - maps[1][i]) ** 2, 0);
    const value = [square / P, square, Math.sqrt(square)][Number(distance.value)];
    const dot = parts[0].map.reduce((total, a, i) => total + a * parts[1].map[i], 0);
    const both = lengths[0] > 0 && lengths[1] > 0;
    put(loss, value, 5);
    if (both) {
      put(cosine, dot / lengths[0] / lengths[1], 4);
      put(identity, (2 - 2 * dot / lengths[0] / lengths[1]) / P, 5);
    } else {
      [cosine, identity].forEach((node) => { node.textContent = "none: a map is all 0"; node.removeAttribute("value"); });
    }
    const same = both && unit.checked && distance.value === "0";
    line.textContent = "Distance " + loss.textContent + (same
      ? ": this is (2 − 2 cos) / P, so only the angle between the maps counts."
      : !both ? "." : unit.checked
        ? ". The maps have length 1, so it still depends on the angle alone."
        : ". The maps keep their length, so a louder network is farther away even where it looks at the same place.");
  }
  draw();
});
