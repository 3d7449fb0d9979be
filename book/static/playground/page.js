// The playground as a reader meets it: <div data-playground="full"> (or "small", or "draw").
// All other parts are there before it but digits.js, which comes when somebody asks for digits.
(function () {
  "use strict";

  const { kdPlayground } = globalThis;
  // A page outside the site has English alone.
  const _ = globalThis._ ?? ((text, values = {}) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole));
  const {
    CHOICES, LAST_SEED, START, STEPS,
    createSession, decodeArrays, formatSettings, largest, parseSettings, readDigit, softmax, source,
  } = kdPlayground;
  const SVG = "http://www.w3.org/2000/svg";
  const [FINE, COARSE] = [64, 32]; // places a side of a decision surface, at rest and in training
  const PICTURE = 30; // steps between two pictures
  const PIXELS = 480; // of a canvas, whatever its size on the page
  const TILES = 10; // held-out digits a row
  const EVERY = 10; // steps between two measurements
  const STILL = matchMedia("(prefers-reduced-motion: reduce)");
  const MODELS = [["teacher", _("Teacher")], ["labels", _("Labels only")], ["distilled", _("Distilled")]];
  const WORDS = {
    arms: _("Three arms"), moons: _("Two moons"), clouds: _("Four clouds"), digits: _("Digits"),
    labels: _("Labels"), teacher: _("Teacher"), both: _("Both"),
  };

  function add(parent, name, attributes, text) {
    const svg = ["svg", "path", "line", "text", "circle"].includes(name);
    const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
    Object.entries(attributes || {}).forEach(([key, value]) => node.setAttribute(key, value));
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }

  function percent(share) {
    return (100 * share).toFixed(1) + "\u00a0%";
  }

  function signed(points) {
    const text = Math.abs(points).toFixed(1);
    return (Number(text) === 0 ? "" : points < 0 ? "−" : "+") + text;
  }

  function colors(root) {
    const ruler = add(root, "span", { hidden: "" });
    const read = (name) => {
      ruler.style.color = `var(--${name})`;
      return getComputedStyle(ruler).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    };
    const found = { paper: read("raised"), ink: read("ink"), wrong: read("pg-wrong"), map: read("pg-map") };
    for (let c = 0; c < 4; c += 1) found[`class-${c}`] = read(`pg-class-${c}`);
    ruler.remove();
    return found;
  }

  function mix(from, to, share) {
    return from.map((value, i) => value + share * (to[i] - value));
  }

  function css(color, alpha = 1) {
    return `rgb(${color.map(Math.round).join(" ")} / ${alpha})`;
  }

  function bitmap(width, height, colorOf) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i += 1) image.data.set([...colorOf(i), 255], 4 * i);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // The colors of classes stand in the style, which may come after the first picture.
  function onTheme(redraw) {
    kdPlayground.styled.then(redraw);
    const seen = new MutationObserver(redraw);
    seen.observe(document.documentElement, { attributeFilter: ["data-theme", "data-mode"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  // ---- the parts that a playground is put together from

  function radios(parent, key, label, change) {
    const set = add(parent, "fieldset", { class: "pg-choice" });
    add(set, "legend", {}, label);
    const inputs = CHOICES[key].map((value) => {
      const line = add(set, "label");
      const input = add(line, "input", { type: "radio", name: `pg-${key}`, value });
      add(line, "span", {}, WORDS[value]);
      input.addEventListener("change", () => change(key, value));
      return input;
    });
    return (value) => inputs.forEach((input) => { input.checked = input.value === value; });
  }

  function slider(parent, key, label, change, say) {
    const box = add(parent, "label", { class: "pg-slider" });
    const name = add(box, "span", {}, label + " ");
    const output = add(name, "b");
    const input = add(box, "input", { type: "range", min: 0, max: CHOICES[key].length - 1, step: 1 });
    input.addEventListener("input", () => change(key, CHOICES[key][Number(input.value)]));
    return (value, disabled) => {
      input.value = CHOICES[key].indexOf(value);
      input.disabled = disabled;
      output.textContent = say(value);
      input.setAttribute("aria-valuetext", say(value));
    };
  }

  function createControls(parent, change) {
    const box = add(parent, "div", { class: "pg-controls" });
    const set = {
      data: radios(box, "data", _("Data"), change),
      from: radios(box, "from", _("The distilled student learns from"), change),
      temperature: slider(box, "temperature", _("Temperature T"), change, String),
      weight: slider(box, "weight", _("Teacher’s weight w"), change, String),
      labels: slider(box, "labels", _("Labeled points"), change, String),
      unlabeled: slider(box, "unlabeled", _("Unlabeled points"), change, String),
      noise: slider(box, "noise", _("Wrong labels"), change, (value) => `${100 * value} %`),
      width: slider(box, "width", _("Student width"), change, String),
    };
    const line = add(box, "label", { class: "pg-slider" });
    add(line, "span", {}, _("Seed, 1 to {n}", { n: LAST_SEED }));
    const seed = add(line, "input", { type: "number", min: 1, max: LAST_SEED, step: 1 });
    seed.addEventListener("change", () => change("seed", Number(seed.value)));
    return (settings) => {
      Object.entries(set).forEach(([key, show]) => {
        const idle = (key === "weight" && settings.from !== "both") ||
          (key === "unlabeled" && settings.from === "labels");
        show(settings[key], idle);
      });
      seed.value = settings.seed;
    };
  }

  // Three pictures side by side; arrows, a tap or a drag move the probe.
  function createStage(parent, move) {
    const box = add(parent, "div", { class: "pg-stage" });
    return MODELS.map(([key, name]) => {
      const panel = add(box, "figure", { class: `pg-panel pg-${key}` });
      add(panel, "figcaption", {}, name);
      const canvas = add(panel, "canvas", {
        width: PIXELS, height: PIXELS, role: "img", "aria-label": _("{name}: not trained yet.", { name }),
      });
      const point = ({ clientX, clientY }) => {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        move([(clientX - left) / width, (clientY - top) / height]);
      };
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        point(event);
      });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
      const numbers = add(panel, "p", { class: "pg-numbers" });
      return { key, name, canvas, right: add(numbers, "b"), agreed: add(numbers, "span") };
    });
  }

  function createProbe(parent) {
    const box = add(parent, "div", { class: "pg-probe" });
    const title = add(box, "p", { class: "pg-title" });
    const table = add(box, "table");
    return (names, temperature, rows, what) => {
      title.textContent = _("{what}, softened with T = {T}", { what, T: temperature });
      table.replaceChildren();
      const head = add(add(table, "thead"), "tr");
      add(head, "th", { scope: "col" }, _("Class"));
      MODELS.forEach(([key, name]) => add(head, "th", { scope: "col", class: `pg-${key}` }, name));
      const body = add(table, "tbody");
      names.forEach((name, c) => {
        const line = add(body, "tr");
        add(line, "th", { scope: "row" }, name);
        rows.forEach((p, k) => {
          const cell = add(line, "td", { class: `pg-${MODELS[k][0]}` });
          add(cell, "span", { class: "pg-bar", style: `width: ${(100 * p[c]).toFixed(1)}%` });
          add(cell, "span", { class: "pg-value" }, (100 * p[c]).toFixed(p[c] < 0.0995 ? 1 : 0));
        });
      });
    };
  }

  function createCurves(parent) {
    const box = add(parent, "div", { class: "pg-curves" });
    add(box, "p", { class: "pg-title" }, _("Right on points that nobody trained on, in %"));
    const svg = add(box, "svg", { viewBox: "0 0 340 190", role: "img", "aria-label": _("Curves: not trained yet.") });
    const key = add(box, "p", { class: "pg-key" });
    MODELS.forEach(([name, text]) => add(key, "span", { class: `pg-${name}` }, text));
    return (history, teacher, classes) => {
      const floor = Math.floor(10 / classes) / 10;
      const x = (step) => 34 + (298 * step) / STEPS;
      const y = (share) => 12 + (150 * (1 - share)) / (1 - floor);
      svg.replaceChildren();
      [floor, (1 + floor) / 2, 1].forEach((share) => {
        add(svg, "line", { x1: 34, x2: 332, y1: y(share), y2: y(share), class: "pg-grid" });
        add(svg, "text", { x: 28, y: y(share) + 4, "text-anchor": "end" }, Math.round(100 * share));
      });
      [[0, "start"], [STEPS / 2, "middle"], [STEPS, "end"]].forEach(([step, anchor]) =>
        add(svg, "text", { x: x(step), y: 180, "text-anchor": anchor },
          step === STEPS / 2 ? _("steps") : step));
      const draw = (name, points) => add(svg, "path", {
        class: `pg-line pg-${name}`,
        d: points.map(([step, share], i) =>
          `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(Math.max(share, floor)).toFixed(1)}`).join(""),
      });
      draw("teacher", [[0, teacher], [STEPS, teacher]]);
      ["labels", "distilled"].forEach((name, k) =>
        draw(name, history.map(({ step, found }) => [step, found[k].accuracy])));
      const { step, found } = history[history.length - 1];
      svg.setAttribute("aria-label", _(
        "Curves of accuracy. At step {step}: labels only {labels}, distilled {distilled}, teacher {teacher}.", {
          step, labels: percent(found[0].accuracy), distilled: percent(found[1].accuracy), teacher: percent(teacher),
        }));
    };
  }

  function spread(gains) {
    const mean = gains.reduce((sum, gain) => sum + gain, 0) / gains.length;
    const squares = gains.reduce((sum, gain) => sum + (gain - mean) ** 2, 0);
    return { mean, deviation: Math.sqrt(squares / (gains.length - 1)) };
  }

  function createPresets(parent, choose) {
    const box = add(parent, "div", { class: "pg-presets" });
    const buttons = new Map();
    const groups = [
      ["gain", _("Where it helps")], ["little", _("Where it helps little")], ["nothing", _("Where it does nothing")],
    ];
    groups.forEach(([kind, title]) => {
      const group = add(box, "div", { role: "group", "aria-label": title });
      add(group, "span", { class: "pg-group" }, title);
      kdPlayground.presets.filter(({ expected }) => expected === kind).forEach((preset) => {
        const button = add(group, "button", { type: "button" }, _(preset.title));
        button.addEventListener("click", () => choose(parseSettings(preset.settings)));
        buttons.set(preset, button);
      });
    });
    const story = add(box, "div", { class: "pg-story" });
    return (settings) => {
      story.replaceChildren();
      buttons.forEach((button, preset) => {
        const same = formatSettings({ ...settings, seed: 1 }) ===
          formatSettings(parseSettings(preset.settings));
        button.setAttribute("aria-pressed", same);
        if (!same) return;
        add(story, "p", {}, _(preset.text));
        const { labels, distilled } = kdPlayground.measured[preset.id];
        const gains = distilled.map((value, n) => value - labels[n]);
        const { mean, deviation } = spread(gains);
        const said = _("Measured over {n} seeds: {mean} ± {deviation} points on held-out points, distilled less labels only.", {
          n: gains.length, mean: signed(mean), deviation: deviation.toFixed(1),
        });
        add(story, "p", {}, said);
        const strip = add(story, "svg", {
          viewBox: "0 0 340 42", role: "img",
          "aria-label": _("One dot a seed, from {least} to {most} points.", {
            least: signed(Math.min(...gains)), most: signed(Math.max(...gains)),
          }),
        });
        const x = (gain) => 74 + 4.8 * Math.max(-10, Math.min(50, gain));
        add(strip, "line", { x1: 26, x2: 314, y1: 24, y2: 24, class: "pg-grid" });
        [-10, 0, 10, 20, 30, 40, 50].forEach((gain) => {
          add(strip, "line", { x1: x(gain), x2: x(gain), y1: 20, y2: 28, class: "pg-grid" });
          add(strip, "text", { x: x(gain), y: 41, "text-anchor": "middle" }, signed(gain).replace(".0", ""));
        });
        gains.forEach((gain, n) => add(strip, "circle", { cx: x(gain), cy: 9 + 6 * (n % 2), r: 3 }));
      });
    };
  }

  // ---- drawing

  const grid = (side) => Float64Array.from({ length: 2 * side * side }, (_, i) => {
    const n = i >> 1;
    return i % 2 ? 1 - (2 * (Math.floor(n / side) + 0.5)) / side : (2 * ((n % side) + 0.5)) / side - 1;
  });
  const [fine, coarse] = [FINE, COARSE].map(grid);

  function drawSurface(canvas, logits, classes, palette) {
    const side = Math.sqrt(logits.length / classes);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.drawImage(bitmap(side, side, (n) => {
      const p = softmax(logits, n, classes);
      const best = largest(logits, n, classes);
      const sure = (p[best] - 1 / classes) / (1 - 1 / classes);
      return mix(palette.paper, palette[`class-${best}`], 0.1 + 0.5 * sure);
    }), 0, 0, PIXELS, PIXELS);
  }

  function at(x, y) {
    return [(PIXELS * (x + 1)) / 2, (PIXELS * (1 - y)) / 2];
  }

  function dot(context, [x, y], radius, fill, stroke) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = 2.5;
      context.stroke();
    }
  }

  // What a student is told: big dots are labels, a cross marks a wrong one, small dots are points
  // that the teacher answers.
  function drawPoints(canvas, session, key, palette) {
    const context = canvas.getContext("2d");
    const { pool, classes } = session.source;
    const place = (index) => at(pool.rows[2 * index], pool.rows[2 * index + 1]);
    const { from } = session.settings;
    if (key === "distilled" && from !== "labels") {
      const asked = from === "teacher" ? session.labeled.concat(session.unlabeled) : session.unlabeled;
      asked.forEach((index) => dot(context, place(index), 5,
        css(palette[`class-${largest(pool.teacher, index, classes)}`]), css(palette.ink, 0.55)));
      if (from === "teacher") return;
    }
    session.labeled.forEach((index, n) => {
      const [x, y] = place(index);
      dot(context, [x, y], 9, css(palette[`class-${session.given[n]}`]), css(palette.ink));
      if (session.given[n] === session.truth[n]) return;
      context.beginPath();
      [[-6, -6, 6, 6], [-6, 6, 6, -6]].forEach(([a, b, c, d]) => {
        context.moveTo(x + a, y + b);
        context.lineTo(x + c, y + d);
      });
      context.stroke();
    });
  }

  function drawProbe(canvas, [x, y], palette) {
    const context = canvas.getContext("2d");
    const [left, top] = at(x, y);
    [[palette.paper, 9], [palette.ink, 4]].forEach(([color, thick]) => {
      context.beginPath();
      context.arc(left, top, 17, 0, 2 * Math.PI);
      context.strokeStyle = css(color);
      context.lineWidth = thick;
      context.stroke();
    });
  }

  // The first held-out digits; the ones that a model gets wrong stand on a colored ground, framed.
  function drawTiles(canvas, held, logits, probe, palette) {
    const context = canvas.getContext("2d");
    const side = PIXELS / TILES;
    const wrong = (n) => largest(logits, n, 10) !== held.labels[n];
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap(8 * TILES, 8 * TILES, (i) => {
      const [x, y] = [i % (8 * TILES), Math.floor(i / (8 * TILES))];
      const n = TILES * (y >> 3) + (x >> 3);
      const ground = wrong(n) ? mix(palette.paper, palette.wrong, 0.55) : palette.paper;
      return mix(ground, palette.ink, held.rows[64 * n + 8 * (y & 7) + (x & 7)]);
    }), 0, 0, PIXELS, PIXELS);
    const frame = (n, color, thick) => {
      context.strokeStyle = css(color);
      context.lineWidth = thick;
      context.strokeRect((n % TILES) * side + thick / 2, Math.floor(n / TILES) * side + thick / 2,
        side - thick, side - thick);
    };
    for (let n = 0; n < TILES * TILES; n += 1) if (wrong(n)) frame(n, palette.wrong, 3);
    frame(probe, palette.paper, 10);
    frame(probe, palette.ink, 6);
  }

  // ---- a playground

  function mountPlayground(root) {
    const full = root.dataset.playground === "full";
    root.replaceChildren();
    root.classList.add("pg");
    let settings = parseSettings(full ? location.hash.slice(1) : formatSettings(START));
    let session;
    let history;
    let drawn = 0; // the step that is shown
    let surface; // the teacher's answers on the grid, of the data set now shown
    let palette;
    let playing = false;
    let place = [0.3, 0.35];
    let tile = 0;

    const showPresets = full ? createPresets(root, (chosen) => apply(chosen)) : () => {};
    const stage = createStage(root, ([x, y]) => probe([2 * x - 1, 1 - 2 * y]));
    const bar = add(root, "div", { class: "pg-run" });
    const play = add(bar, "button", { type: "button", class: "pg-play" });
    const other = add(bar, "button", { type: "button" }, _("Another seed"));
    const link = full ? add(bar, "button", { type: "button" }, _("Copy link")) : null;
    const count = add(bar, "span", { class: "pg-count" });
    const line = add(root, "p", { class: "pg-said", role: "status" });
    const showControls = full ? createControls(root, (key, value) =>
      apply(parseSettings(formatSettings({ ...settings, [key]: value })))) : () => {};
    const below = full ? add(root, "div", { class: "pg-below" }) : null;
    const showCurves = full ? createCurves(below) : () => {};
    const showProbe = full ? createProbe(below) : () => {};

    if (full) {
      const handle = stage[0].canvas;
      handle.setAttribute("tabindex", 0);
      handle.setAttribute("role", "application");
      handle.addEventListener("keydown", (event) => {
        const step = {
          ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
        }[event.key];
        if (!step) return;
        event.preventDefault();
        const size = settings.data === "digits" ? 2 / TILES : 0.06;
        const [x, y] = settings.data === "digits" ? tileCenter() : place;
        probe([x + size * step[0], y + size * step[1]]);
        say(probed());
      });
    }

    function tileCenter() {
      return [(2 * (tile % TILES) + 1) / TILES - 1, 1 - (2 * Math.floor(tile / TILES) + 1) / TILES];
    }

    function probe([x, y]) {
      if (!session || !full) return;
      const inside = (value) => Math.max(-0.99, Math.min(0.99, value));
      if (settings.data === "digits") {
        const cell = (value) => Math.floor(((inside(value) + 1) / 2) * TILES);
        tile = TILES * cell(-y) + cell(x);
      } else {
        place = [inside(x), inside(y)];
      }
      draw();
    }

    function probed() {
      const rows = settings.data === "digits"
        ? session.source.held.rows.slice(64 * tile, 64 * tile + 64) : Float64Array.from(place);
      const answers = [session.source.answer(rows), ...session.students.map((student) =>
        session.logits(student, rows))];
      const p = answers.map((logits) => softmax(logits, 0, session.source.classes, settings.temperature));
      const what = settings.data === "digits"
        ? _("A held-out {digit}", { digit: session.source.names[session.source.held.labels[tile]] })
        : _("The ringed point ({place})", { place: place.map((value) => value.toFixed(2).replace("-", "−")).join(", ") });
      showProbe(session.source.names, settings.temperature, p, what);
      const best = answers.map((logits, k) => {
        const answer = largest(logits, 0, session.source.classes);
        return `${MODELS[k][1].toLowerCase()} ${session.source.names[answer]}, ${percent(p[k][answer])}`;
      });
      return `${what}: ${best.join("; ")}.`;
    }

    function say(text) {
      line.textContent = text;
    }

    function summary() {
      const { step, found } = history[history.length - 1];
      const gain = 100 * (found[1].accuracy - found[0].accuracy);
      const [labels, distilled] = found.map(({ accuracy }) => percent(accuracy));
      return _("After {step} steps the distilled student has {distilled} right and the student of labels {labels}: a difference of {gain} points, in this one run.", {
        step, distilled, labels, gain: signed(gain),
      });
    }

    // Quick: on a phone the pictures cost more than the training.
    function draw(quick = false) {
      const { held, classes } = session.source;
      const last = history[history.length - 1];
      drawn = session.steps;
      stage.forEach(({ key, name, canvas, right, agreed }, k) => {
        if (quick && k === 0) return;
        const student = k && session.students[k - 1];
        let logits;
        if (settings.data === "digits") {
          logits = k ? session.logits(student, held.rows) : held.teacher;
          drawTiles(canvas, held, logits, tile, palette);
        } else {
          logits = k ? session.logits(student, quick ? coarse : fine) : surface;
          drawSurface(canvas, logits, classes, palette);
          if (k) drawPoints(canvas, session, key, palette);
          if (full) drawProbe(canvas, place, palette);
        }
        const accuracy = k ? last.found[k - 1].accuracy : session.teacherAccuracy;
        const agreement = k ? last.found[k - 1].agreement : 1;
        right.textContent = _("{share} right", { share: percent(accuracy) });
        agreed.textContent = k ? _("{share} as the teacher", { share: percent(agreement) }) : _("trained before, on clean labels");
        canvas.setAttribute("aria-label", [
          _("{name}: {share} right on held-out points.", { name, share: percent(accuracy) }),
          settings.data === "digits"
            ? _("The first hundred held-out digits; those it gets wrong are framed.")
            : _("Its decision surface, one color for each class, paler where it is less sure."),
          ...(full && k === 0 ? [_("Arrow keys move the probe.")] : []),
        ].join(" "));
      });
      showCurves(history, session.teacherAccuracy, classes);
      if (full) probed();
      count.textContent = _("step {n} of {all}", { n: session.steps, all: STEPS });
      const done = session.steps >= STEPS;
      play.textContent = playing ? _("Pause") : done ? _("Train again") : _("Train");
      root.dataset.steps = session.steps;
    }

    function note() {
      history.push({ step: session.steps, found: session.measure() });
    }

    function frame() {
      if (!playing || !root.isConnected) return;
      const until = performance.now() + (STILL.matches ? 40 : 9);
      const most = STILL.matches ? STEPS : 5;
      for (let k = 0; k < most && session.steps < STEPS && performance.now() < until; k += 1) {
        session.step();
        if (session.steps % EVERY === 0) note();
      }
      if (session.steps >= STEPS) playing = false;
      if (!playing) draw();
      else if (!STILL.matches && session.steps - drawn >= PICTURE) draw(true);
      if (playing) requestAnimationFrame(frame);
      else say(summary());
    }

    function start() {
      if (playing) return;
      playing = true;
      say("");
      requestAnimationFrame(frame);
    }

    function reset() {
      const data = source(settings.data);
      session = createSession(data, settings);
      const right = data.held.labels.filter((label, n) => largest(data.held.teacher, n, data.classes) === label);
      session.teacherAccuracy = right.length / data.held.labels.length;
      history = [];
      note();
      palette = colors(root);
      if (settings.data !== "digits") {
        surface = Float64Array.from(Array.from({ length: FINE * FINE }, (_, n) =>
          Array.from(data.answer(fine.subarray(2 * n, 2 * n + 2)))).flat());
      }
    }

    async function apply(chosen) {
      settings = chosen;
      playing = false;
      showControls(settings);
      showPresets(settings);
      // Not history.replaceState, which a page from a folder may not call.
      if (full && formatSettings(parseSettings(location.hash.slice(1))) !== formatSettings(settings)) {
        location.replace("#" + formatSettings(settings));
      }
      try {
        if (settings.data === "digits") await kdPlayground.load("digits");
      } catch {
        say(_("The digits did not load: reload the page, or choose other data."));
        return;
      }
      if (chosen !== settings) return;
      reset();
      draw();
      start();
    }

    play.addEventListener("click", () => {
      if (playing) {
        playing = false;
        note();
        draw();
        say(summary());
      } else if (session && session.steps >= STEPS) {
        reset();
        start();
      } else if (session) {
        start();
        draw();
      }
    });
    other.addEventListener("click", () => apply({ ...settings, seed: (settings.seed % LAST_SEED) + 1 }));
    if (link) {
      link.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(location.href);
          say(_("The link to these settings is copied."));
        } catch {
          say(_("The address bar has the link to these settings."));
        }
      });
      addEventListener("hashchange", () => {
        const asked = parseSettings(location.hash.slice(1));
        if (location.hash && formatSettings(asked) !== formatSettings(settings)) apply(asked);
      });
    }
    onTheme(() => {
      if (!session) return;
      palette = colors(root);
      draw();
    });
    // It begins when it is seen.
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      seen.disconnect();
      if (!session) apply(settings);
    });
    showControls(settings);
    showPresets(settings);
    play.textContent = _("Train");
    seen.observe(stage[0].canvas);
  }

  // ---- a digit that is drawn

  const BOARD = 32; // the bitmaps that the data set was counted from
  const PEN = 1.9; // half the width of a stroke on them

  // Strokes to 8 x 8 counts as the data set has them: the digit fills the height of 32 x 32 pixels,
  // and each 4 x 4 block counts its black ones.
  function rasterize(strokes) {
    const points = strokes.flat();
    const [xs, ys] = [0, 1].map((k) => points.map((point) => point[k]));
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const room = BOARD - 2 * PEN;
    const scale = Math.min(room / Math.max(bottom - top, 1e-3), (room - 4) / Math.max(right - left, 1e-3));
    const fit = ([x, y]) => [
      BOARD / 2 + scale * (x - (left + right) / 2), BOARD / 2 + scale * (y - (top + bottom) / 2),
    ];
    const segments = strokes.flatMap((stroke) => {
      const fitted = stroke.map(fit);
      return fitted.map((point, i) => [fitted[Math.max(i - 1, 0)], point]);
    });
    const image = new Float64Array(64);
    for (let y = 0; y < BOARD; y += 1) {
      for (let x = 0; x < BOARD; x += 1) {
        const near = segments.some(([[ax, ay], [bx, by]]) => {
          const [dx, dy] = [bx - ax, by - ay];
          const along = ((x + 0.5 - ax) * dx + (y + 0.5 - ay) * dy) / (dx * dx + dy * dy || 1);
          const t = Math.max(0, Math.min(1, along));
          return Math.hypot(x + 0.5 - ax - t * dx, y + 0.5 - ay - t * dy) <= PEN;
        });
        if (near) image[8 * (y >> 2) + (x >> 2)] += 1 / 16;
      }
    }
    return image;
  }

  const READERS = [
    ["teacher", _("Teacher")], ["labels", _("Labels only")], ["distilled", _("Soft targets")],
    ["attention", _("Attention transfer")],
  ];

  function mountDrawing(root) {
    root.replaceChildren();
    root.classList.add("pg");
    const board = add(root, "div", { class: "pg-board" });
    const canvas = add(board, "canvas", {
      width: PIXELS, height: PIXELS, role: "img", "aria-label": _("Draw a digit here."),
    });
    const side = add(board, "div");
    add(side, "p", { class: "pg-title" }, _("Draw one digit, large, in the square."));
    const buttons = add(side, "div", { class: "pg-run" });
    const clear = add(buttons, "button", { type: "button" }, _("Clear"));
    const next = add(buttons, "button", { type: "button" }, _("Show one of the data"));
    const line = add(side, "p", { class: "pg-said", role: "status" });
    const table = add(add(root, "div", { class: "pg-scroll", tabindex: 0, role: "region", "aria-label": _("Answers") }), "table", { class: "pg-readers" });
    let strokes = [];
    let image = new Float64Array(64);
    let shown = -1;

    const head = add(add(table, "thead"), "tr");
    [_("Network"), _("Answer"), _("Map, 8 × 8"), _("Map, 4 × 4"), _("Test digits right")].forEach((text) =>
      add(head, "th", { scope: "col" }, text));
    const body = add(table, "tbody");
    const readers = READERS.map(([key, name]) => {
      const row = add(body, "tr");
      add(row, "th", { scope: "row" }, name);
      const answer = add(row, "td");
      const maps = [8, 4].map((size) => add(add(row, "td"), "canvas", {
        width: 96, height: 96, role: "img", "aria-label": _("Map of {size} × {size} of {name}", { size, name }),
      }));
      return { key, name, answer, maps, right: add(row, "td") };
    });

    function paint() {
      const palette = colors(root);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap(8, 8, (i) => mix(palette.paper, palette.ink, 0.85 * image[i])), 0, 0, PIXELS, PIXELS);
      context.lineCap = "round";
      context.lineJoin = "round";
      context.lineWidth = 12;
      context.strokeStyle = css(palette["class-1"]);
      strokes.forEach((stroke) => {
        context.beginPath();
        [stroke[0], ...stroke].forEach(([x, y], i) =>
          context[i ? "lineTo" : "moveTo"](x * PIXELS, y * PIXELS));
        context.stroke();
      });
      return palette;
    }

    function read() {
      const palette = paint();
      const empty = image.every((value) => value === 0);
      const said = readers.map(({ key, name, answer, maps, right }) => {
        const stored = kdPlayground.digits;
        right.textContent = percent(stored.accuracy[key]);
        const { logits, maps: found } = readDigit(decodeArrays(stored.networks[key]), image);
        const best = largest(logits, 0, 10);
        const sure = percent(softmax(logits, 0, 10)[best]);
        answer.textContent = "";
        if (!empty) {
          add(answer, "b", { class: "pg-digit" }, best);
          add(answer, "span", {}, sure);
        }
        maps.forEach((small, k) => {
          const size = [8, 4][k];
          const top = Math.max(...found[k], 1e-9);
          const context = small.getContext("2d");
          context.imageSmoothingEnabled = false;
          context.drawImage(bitmap(size, size, (i) =>
            mix(palette.paper, palette.map, empty ? 0 : found[k][i] / top)), 0, 0, 96, 96);
        });
        return `${name}: ${best}, ${sure}`;
      });
      const from = shown < 0 ? "" : `${_("The data say {digit}.", { digit: stored(shown) })} `;
      line.textContent = empty ? "" : `${from}${said.join("; ")}.`;
    }

    function stored(n) {
      return source("digits").held.labels[n];
    }

    function point({ clientX, clientY }) {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [(clientX - left) / width, (clientY - top) / height];
    }

    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (shown >= 0) strokes = [];
      shown = -1;
      strokes.push([point(event)]);
      image = new Float64Array(64);
      paint();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons || !strokes.length || shown >= 0) return;
      strokes[strokes.length - 1].push(point(event));
      paint();
    });
    canvas.addEventListener("pointerup", () => {
      if (!strokes.length) return;
      image = rasterize(strokes);
      read();
    });
    clear.addEventListener("click", () => {
      strokes = [];
      shown = -1;
      image = new Float64Array(64);
      read();
    });
    next.addEventListener("click", () => {
      strokes = [];
      const { held } = source("digits");
      shown = (shown + 1) % held.labels.length;
      image = held.rows.slice(64 * shown, 64 * shown + 64);
      read();
    });
    const seen = new IntersectionObserver(async (entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      seen.disconnect();
      try {
        await kdPlayground.load("digits");
      } catch {
        line.textContent = _("The digits did not load: reload the page.");
        return;
      }
      onTheme(read);
      next.click();
    }, { rootMargin: "200px" });
    seen.observe(root);
  }

  document.querySelectorAll("[data-playground]").forEach((root) => {
    if (root.dataset.playground === "draw") mountDrawing(root);
    else mountPlayground(root);
  });
})();
