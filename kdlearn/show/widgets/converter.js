const [LOW, HIGH] = [-4, 6]; // the bars' powers of ten

start("converter", (live, data) => {
  const controls = add(live, "div", { class: "kd-controls" });
  const titles = data.rows.map(({ code, loss }) => loss + ": " + code);
  const row = select(controls, "You come from", titles, data.start, () => { weight.value = data.rows[row.value].usual; draw(); });
  const field = (title, value) => {
    const label = add(controls, "label", {}, title);
    const input = add(label, "input", {
      type: "number", step: "any", value, inputmode: "decimal", autocomplete: "off",
      "aria-label": title, "data-lm-suppress-shortcuts": "true",
    });
    input.addEventListener("input", draw);
    return input;
  };
  const weight = field("Its weight", data.rows[data.start].usual);
  const sizes = Object.fromEntries(data.sizes.map(([key, title, value]) => [key, field(title, value)]));
  const bars = add(live, "div", { class: "kd-bars" });
  const there = bar("there", (value) => value);
  const ours = bar("here", (value) => value / rate());
  add(live, "p", { class: "kd-note" }, "Powers of ten, from 0.0001 to 1,000,000. Drag a bar: the other follows.");
  const list = add(live, "ul", { class: "kd-list" });
  const number = (title) => add(add(list, "li", {}, title + " "), "data", { class: "kd-value" });
  const here = number("weight of the loss here:");
  const labels = number("weight of the labels:");
  const code = add(live, "p", { class: "kd-code" });
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });

  function bar(title, back) {
    add(bars, "span", { class: "kd-name" }, title);
    const svg = shape(bars, "svg", { "aria-hidden": "true", class: "kd-thick" });
    shape(svg, "rect", { class: "kd-track", width: "100%", height: "100%" });
    const filled = shape(svg, "rect", { class: "kd-bar kd-first", height: "100%" });
    const value = add(bars, "span", { class: "kd-value" });
    drag(svg, (x) => {
      const base = back(10 ** (LOW + x * (HIGH - LOW)));
      const typed = data.rows[row.value].complement ? 1 - Math.min(base, 1) : base;
      weight.value = Number(typed.toPrecision(2));
      draw();
    });
    return (weight) => {
      const x = (Math.log10(weight) - LOW) / (HIGH - LOW);
      filled.setAttribute("width", (weight > 0 ? 100 * Math.min(Math.max(x, 0), 1) : 0) + "%");
      value.textContent = Number(weight.toPrecision(3));
    };
  }

  // What a weight of 1 there is here.
  function rate() {
    const { factor, powers } = data.rows[row.value];
    return Object.entries(powers).reduce((product, [key, power]) => product * Number(sizes[key].value) ** power, factor);
  }

  function draw() {
    const { code: from, parameter, factor, powers, complement, labels: rest, write, note } = data.rows[row.value];
    Object.entries(sizes).forEach(([key, input]) => { input.parentNode.hidden = !(key in powers); });
    const typed = Number(weight.value);
    const used = Object.keys(powers).map((key) => Number(sizes[key].value));
    if (weight.value === "" || !Number.isFinite(typed) || used.some((value) => !(value > 0))) {
      [here, labels].forEach((node) => { node.textContent = "?"; node.removeAttribute("value"); });
      code.textContent = "";
      line.textContent = "Type a number for the weight, and numbers above 0 for the sizes.";
      return;
    }
    const base = complement ? 1 - typed : typed;
    const value = base * rate();
    there(base);
    ours(value);
    here.textContent = Number(value.toPrecision(6));
    here.setAttribute("value", value);
    const other = { "": null, "1 - a": 1 - typed, a: typed }[rest];
    labels.parentNode.hidden = other === null;
    if (other !== null) {
      labels.textContent = Number(other.toPrecision(6));
      labels.setAttribute("value", other);
    }
    code.textContent = write.replace("{}", here.textContent);
    const formula = (complement ? "(1 − " + parameter + ")" : parameter) + (factor === 1 ? "" : " × " + factor) +
      Object.entries(powers).map(([key, power]) => (power > 0 ? " × " : " / ") + key + (Math.abs(power) > 1 ? "²" : "")).join("");
    line.textContent = from + ": " + formula + " = " + here.textContent + ". " + note;
  }
  draw();
});
