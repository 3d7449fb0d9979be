// Find the bug by a click on its line, and statements answered by a tap. The page reads well without:
// this turns the printed code and the list into buttons. Scores stay in the reader's browser.
"use strict";

(() => {
  const STORE = "kdlearn-taps";
  const STYLE = `
    .kd-tap button { background: none; border: 1px solid transparent; border-radius: 5px; color: inherit; cursor: pointer; font: inherit; min-height: 2rem; text-align: left; }
    .kd-tap button:focus-visible { outline: 2px solid currentColor; outline-offset: -2px; }
    .kd-tap .kd-tap-line { display: flex; font: 0.85em/1.45 var(--pst-font-family-monospace, monospace); gap: 0.8em; padding: 0.1rem 0.3rem; width: 100%; }
    .kd-tap .kd-tap-line > span:first-child { color: var(--pst-color-text-muted, inherit); flex: none; min-width: 1.5em; text-align: right; user-select: none; }
    .kd-tap .kd-tap-line > span:last-child { overflow-wrap: anywhere; white-space: pre-wrap; }
    .kd-tap .kd-tap-line:hover { border-color: currentColor; }
    .kd-tap .kd-tap-choice { border-color: currentColor; margin: 0.3rem 0.5rem 0.3rem 0; min-width: 5rem; text-align: center; }
    .kd-tap [data-answer="right"] { border-color: currentColor; font-weight: 700; }
    .kd-tap [data-answer="right"]::after { content: " \\2713"; }
    .kd-tap [data-answer="wrong"] { opacity: 0.75; text-decoration: line-through; }
    .kd-tap p { margin: 0.4rem 0; }
    @media (pointer: coarse) { .kd-tap button { min-height: 2.75rem; } }
    @media print { .kd-tap { display: none; } .kd-tapped { display: block !important; } }`;

  function add(parent, name, attributes, text) {
    const node = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  // A browser may forbid to keep anything; then the score lasts as long as the page.
  let kept = {};
  try { kept = JSON.parse(localStorage.getItem(STORE)) || {}; } catch { /* nothing was kept */ }
  function keep(id, value) {
    kept[id] = value;
    try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { /* nothing is kept */ }
  }

  // One line for a page: how many were answered, how many at the first try, and a way to begin anew.
  function score(place, ids, what) {
    const box = add(document.createElement("div"), "div", { class: "kd-tap" });
    const line = add(box, "p", { class: "kd-tap-score", role: "status" });
    const again = add(box, "button", { type: "button", class: "kd-tap-choice" }, "Start again");
    again.addEventListener("click", () => { ids.forEach((id) => keep(id, undefined)); location.reload(); });
    place(box);
    return () => {
      const done = ids.filter((id) => kept[id] && kept[id].right);
      const first = done.filter((id) => kept[id].tries === 1);
      line.textContent = done.length + " of " + ids.length + " " + what + ", " + first.length + " at the first try.";
      again.hidden = !ids.some((id) => kept[id]);
    };
  }

  function bug(fold, told) {
    const id = fold.dataset.bug, right = Number(fold.dataset.line);
    const pre = fold.closest("section").querySelector(".cell_output pre");
    const [measured, , ...lines] = pre.textContent.trimEnd().split("\n");
    const box = add(document.createElement("div"), "div", { class: "kd-tap", role: "group", "aria-label": "Code; choose the wrong line" });
    add(box, "p", {}, measured);
    const buttons = lines.map((text, i) => {
      const node = add(box, "button", { type: "button", class: "kd-tap-line" });
      add(node, "span", {}, i + 1);
      const code = add(node, "span", {}, text.slice(4));
      // A line that is wider than the page goes on below its own beginning.
      const depth = code.textContent.search(/\S/) + 2;
      code.style.paddingLeft = depth + "ch";
      code.style.textIndent = -depth + "ch";
      node.addEventListener("click", () => answer(i + 1));
      return node;
    });
    const say = add(box, "p", { role: "status" }, "Which line is wrong? Click or tap it.");
    const output = pre.closest(".cell_output");
    output.classList.add("kd-tapped");
    output.style.display = "none";
    output.before(box);

    function show(line) {
      buttons[line - 1].dataset.answer = line === right ? "right" : "wrong";
      say.textContent = line === right
        ? "Yes, line " + line + ". Why, and what belongs there, is below."
        : "Line " + line + " is fine. What would the symptom be if it were not?";
    }
    function answer(line) {
      const before = kept[id] || { tries: 0, right: false };
      show(line);
      if (line === right) fold.open = true;
      if (!before.right) keep(id, { tries: before.tries + 1, right: line === right });
      told();
    }
    if (kept[id] && kept[id].right) show(right);
  }

  function statement(item, letter, { verdict, reason }, told) {
    const id = "statement-" + letter;
    const box = add(item, "div", { class: "kd-tap", role: "group", "aria-label": "Statement " + letter });
    const choices = ["true", "false"].map((word) => {
      const node = add(box, "button", { type: "button", class: "kd-tap-choice" }, word);
      node.addEventListener("click", () => {
        if (!kept[id]) keep(id, { tries: 1, right: word === verdict, word });
        show(word);
        told();
      });
      return { word, node };
    });
    const say = add(box, "p", { role: "status" });
    function show(word) {
      choices.forEach(({ word: each, node }) => {
        delete node.dataset.answer;
        if (each === word) node.dataset.answer = word === verdict ? "right" : "wrong";
      });
      say.textContent = (word === verdict ? "Right, it is " : "No, it is ") + verdict + ": " + reason;
    }
    if (kept[id]) show(kept[id].word);
  }

  const bugs = [...document.querySelectorAll("details[data-bug]")]
    .filter((fold) => fold.closest("section").querySelector(".cell_output pre"));
  const verdicts = document.querySelector("details.kd-verdicts");
  if (bugs.length || verdicts) add(document.head, "style", {}, STYLE);
  if (bugs.length) {
    const first = bugs[0].closest("section");
    const told = score((box) => first.before(box), bugs.map((fold) => fold.dataset.bug), "found");
    bugs.forEach((fold) => bug(fold, told));
    told();
  }
  if (verdicts) {
    const known = {};
    verdicts.querySelectorAll("li").forEach((item) => {
      const [, letter, verdict, reason] = item.textContent.match(/: ([a-z]) is (true|false): (.*)$/s);
      known[letter] = { verdict, reason: reason.trim() };
    });
    const list = [...verdicts.closest("section").querySelectorAll("ul")]
      .find((each) => /^a\./.test(each.textContent.trim()));
    const items = [...list.children].map((item) => [item, item.textContent.trim()[0]]);
    const told = score((box) => list.before(box), items.map(([, letter]) => "statement-" + letter), "right");
    items.forEach(([item, letter]) => statement(item, letter, known[letter], told));
    told();
  }
})();
