// The mock interview: choose, hear a question, speak, uncover, score, answer a push. All of it stays in the browser.
"use strict";
(() => {
  const { make, html, button, keys, shuffled, kept, keep, open } = kdInterview;
  const { _ } = globalThis;
  const mount = document.querySelector("[data-mock]");
  const KEY = "kdlearn:mock";
  const ROUND = "kdlearn:mock-round";
  const DAY = 86_400_000;
  // Days until a question comes back, by its score.
  const FIRST = { 1: 1, 2: 1, 3: 4, 4: 9 };
  // Names of topics in their order: the page has them.
  const TOPICS = JSON.parse(mount.dataset.topics);
  const LEVELS = { junior: _("junior"), mid: _("mid"), senior: _("senior"), research: _("research") };
  const ROLES = {
    any: [_("Any"), () => true],
    junior: [_("Junior"), (q) => q.level === "junior" || q.level === "mid"],
    senior: [_("Senior"), (q) => q.level === "mid" || q.level === "senior"],
    research: [_("Research"), (q) => q.level === "senior" || q.level === "research"],
  };
  // What is remembered: for each question its scores and the day when it comes back.
  let seen = kept(KEY);
  const due = (q) => seen[q.id] && seen[q.id].due <= Date.now();
  const remember = (q, score) => {
    const before = seen[q.id];
    const interval = score >= 3 && before ? Math.min(120, before.interval * (score === 4 ? 2.5 : 1.6)) : FIRST[score];
    seen[q.id] = { scores: [...(before?.scores ?? []), score].slice(-10), interval, due: Date.now() + interval * DAY };
    keep(KEY, seen);
  };
  const valid = (record) => record && typeof record === "object" && Object.values(record).every(
    (one) => Array.isArray(one?.scores) && one.scores.every((s) => s >= 1 && s <= 4) && one.interval > 0 && one.due > 0);

  let bank = [];
  let round = null; // the questions to come, what was scored, when it ends
  // Kept with the question that is asked, so that a page that is left, or closed by a phone, can go on.
  const keepRound = (...asked) => keep(ROUND, round && {
    left: [...asked, ...round.left].map((q) => q.id), done: round.done.map(([q, points]) => [q.id, points]), ends: round.ends,
  });
  const keptRound = () => {
    const { left = [], done = [], ends = 0 } = kept(ROUND);
    const named = new Map(bank.map((q) => [q.id, q]));
    const known = left.filter((id) => named.has(id)).map((id) => named.get(id));
    const scored = done.filter(([id]) => named.has(id)).map(([id, points]) => [named.get(id), points]);
    return ends > Date.now() && known.length ? { left: known, done: scored, ends } : null;
  };
  const key = keys();

  const choose = () => {
    key(() => {});
    const role = make("select", { id: "mock-role" }, ...Object.entries(ROLES).map(([value, [text]]) => make("option", { value, textContent: text })));
    const topic = make("select", { id: "mock-topic" }, make("option", { value: "", textContent: _("All topics") }),
      ...Object.entries(TOPICS).filter(([value]) => bank.some((q) => q.topic === value))
        .map(([value, text]) => make("option", { value, textContent: text })));
    const length = make("select", { id: "mock-length" }, ...[10, 20, 30, 60].map((minutes) => make("option", { value: minutes, textContent: _("{n} minutes", { n: minutes }), selected: minutes === 30 })));
    const waiting = bank.filter(due).length;
    const wanted = () => bank.filter((q) => ROLES[role.value][1](q) && (!topic.value || q.topic === topic.value));
    const count = make("p", { className: "mock-count", role: "status" });
    const tell = () => { const today = waiting ? _("{n} of all are due today.", { n: waiting }) : _("None is due today."); count.textContent = `${_("{n} questions to draw from.", { n: wanted().length })} ${today}`; };
    role.addEventListener("change", tell);
    topic.addEventListener("change", tell);
    const begin = (questions, minutes) => {
      if (!questions.length) { count.textContent = _("No question fits: choose another role or topic."); return; }
      round = { left: questions, ends: Date.now() + minutes * 60_000, done: [] };
      ask();
    };
    // What is due comes first, then what was never asked, then the rest.
    const rank = (q) => (due(q) ? 0 : seen[q.id] ? 2 : 1);
    const start = make("button", { type: "button", className: "button first", textContent: _("Begin") });
    start.addEventListener("click", () => begin(shuffled(wanted()).sort((a, b) => rank(a) - rank(b)), Number(length.value)));
    const repeat = make("button", { type: "button", className: "button", textContent: _("Repeat what is due ({n})", { n: waiting }), disabled: !waiting });
    repeat.addEventListener("click", () => begin(shuffled(bank.filter(due)), Number(length.value)));
    const left = keptRound();
    const minutes = left && Math.ceil((left.ends - Date.now()) / 60_000);
    const goOn = left && button(_("Go on, {n} min left", { n: minutes }), () => { round = left; ask(); }, "button first");
    const save = make("button", { type: "button", className: "button", textContent: _("Export") });
    save.addEventListener("click", () => {
      const file = new Blob([JSON.stringify(seen)], { type: "application/json" });
      const link = make("a", { href: URL.createObjectURL(file), download: "kdlearn-mock.json" });
      link.click();
      URL.revokeObjectURL(link.href);
    });
    const file = make("input", { type: "file", accept: "application/json,.json", id: "mock-file" });
    file.addEventListener("change", async () => {
      try {
        const record = JSON.parse(await file.files[0].text());
        if (!valid(record)) throw new Error("form");
        seen = { ...seen, ...record };
        keep(KEY, seen);
        choose();
      } catch { count.textContent = _("This file holds no scores: choose one that Export wrote."); }
    });
    mount.replaceChildren(
      make("div", { className: "mock-form" },
        make("label", { htmlFor: "mock-role", textContent: _("Role") }), role,
        make("label", { htmlFor: "mock-topic", textContent: _("Topic") }), topic,
        make("label", { htmlFor: "mock-length", textContent: _("Length") }), length),
      count, make("div", { className: "mock-buttons" }, ...(goOn ? [goOn] : []), start, repeat),
      make("details", {}, make("summary", { textContent: _("Take your scores with you") }),
        make("div", { className: "mock-buttons" }, save, make("label", { htmlFor: "mock-file", textContent: _("Import") }), file)));
    tell();
  };

  const clock = () => {
    const began = Date.now();
    const shown = make("span", { className: "mock-clock" });
    const tick = () => {
      if (!round || (!shown.isConnected && Date.now() - began > 1000)) { clearInterval(timer); return; }
      const s = Math.floor((Date.now() - began) / 1000);
      const left = Math.max(0, Math.ceil((round.ends - Date.now()) / 60_000));
      shown.textContent = _("{clock}, {n} min left", { clock: `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`, n: left });
    };
    const timer = setInterval(tick, 500);
    setTimeout(tick);
    return shown;
  };

  const ask = () => {
    if (!round.left.length || Date.now() > round.ends) return finish();
    const q = round.left.shift();
    keepRound(q);
    const layers = [
      [_("In 30 seconds"), q.parts["30 seconds"]],
      [_("In two minutes"), q.parts["2 minutes"]],
      [_("Whiteboard and numbers"), [q.parts.whiteboard, q.parts["napkin numbers"]].filter(Boolean).join("")],
      [_("Evidence"), q.parts.evidence],
    ].filter(([, text]) => text);
    const shown = make("div", { className: "mock-layers" });
    const next = make("button", { type: "button", className: "button first" });
    const head = make("p", { className: "mock-head" }, `${_("Question {n}. {topic}, {level}.", { n: round.done.length + 1, topic: TOPICS[q.topic], level: LEVELS[q.level] })} `, clock());
    const title = make("h2", { innerHTML: q.heading, tabIndex: -1 });
    mount.replaceChildren(head, title,
      ...(q.parts.scenario ? [html("mock-scenario", q.parts.scenario)] : []),
      html("mock-question", q.parts.question), shown, next);
    title.focus({ preventScroll: true });
    let at = 0;
    const name = () => { next.textContent = at < layers.length ? _("Uncover: {layer}", { layer: layers[at][0].toLowerCase() }) : _("Score yourself"); };
    const uncover = () => {
      if (at < layers.length) {
        const [heading, text] = layers[at++];
        shown.append(make("h3", { textContent: heading }), html("mock-layer", text));
        name();
        return;
      }
      next.remove();
      score(q, shown);
    };
    next.addEventListener("click", uncover);
    name();
    key((event) => {
      if (event.key === "Enter") { event.preventDefault(); uncover(); }
      if (event.key === "Escape") finish();
    });
    scrollTo({ top: mount.offsetTop - 80 });
  };

  const score = (q, shown) => {
    const lines = make("ol", { className: "mock-rubric" });
    const choices = q.rubric.map((text, i) => {
      const button = make("button", { type: "button", className: "button", innerHTML: `<b>${i + 1}</b> ${text}` });
      button.addEventListener("click", () => take(i + 1));
      lines.append(make("li", {}, button));
      return button;
    });
    const take = (points) => {
      remember(q, points);
      round.done.push([q, points]);
      keepRound();
      choices.forEach((button, i) => { button.disabled = true; button.ariaPressed = String(i + 1 === points); });
      push(q, points, shown);
    };
    shown.append(
      make("details", {}, make("summary", { textContent: _("What people say, and why it is wrong") }),
        ...q.wrong_answers.map((one) => html("mock-wrong", `<p><b>${one.answer}</b></p>${one.why}`))),
      make("h3", { textContent: _("How good was your answer?") }), lines);
    key((event) => {
      if ("1234".includes(event.key)) take(Number(event.key));
      if (event.key === "Escape") finish();
    });
    lines.scrollIntoView({ block: "nearest" });
  };

  // The weaker the answer, the nearer the push stays to the question.
  const push = (q, points, shown) => {
    const one = q.follow_ups[Math.min(Math.max(points - 2, 0), q.follow_ups.length - 1)];
    const answer = html("mock-layer", one.answer);
    answer.hidden = true;
    const open = make("button", { type: "button", className: "button first", textContent: _("Uncover the answer") });
    const next = make("button", { type: "button", className: "button first", textContent: _("Next question") });
    const read = make("a", { href: q.chapter, textContent: _("Read the chapter") });
    const uncover = () => { answer.hidden = false; open.remove(); after.hidden = false; };
    const after = make("div", { className: "mock-buttons", hidden: true }, next, read);
    open.addEventListener("click", uncover);
    next.addEventListener("click", ask);
    shown.append(make("h3", { textContent: _("The interviewer pushes") }), html("mock-question", one.question), open, answer, after);
    key((event) => {
      if (event.key === "Enter") { event.preventDefault(); if (answer.hidden) uncover(); else ask(); }
      if (event.key === "n") ask();
      if (event.key === "Escape") finish();
    });
    open.scrollIntoView({ block: "nearest" });
  };

  const finish = () => {
    key(() => {});
    const { done } = round;
    round = null;
    keepRound();
    const again = button(_("Another interview"), choose, "button first");
    if (!done.length) return choose();
    const mean = done.reduce((sum, [, points]) => sum + points, 0) / done.length;
    const body = make("tbody", {}, ...done.map(([q, points]) => make("tr", {},
      make("td", {}, make("a", { href: `questions/${q.id}.html`, textContent: q.title.replace(/[`$]/g, "") })),
      make("td", { className: "number", textContent: String(points) }),
      make("td", { className: "number", textContent: _("{n} d", { n: Math.round(seen[q.id].interval) }) }))));
    const head = make("thead", {}, make("tr", {}, ...[_("Question"), _("Score"), _("Again in")].map((textContent) => make("th", { textContent, scope: "col" }))));
    mount.replaceChildren(
      make("h2", { textContent: done.length === 1
        ? _("1 question, {mean} of 4 on average", { mean: mean.toFixed(1) })
        : _("{n} questions, {mean} of 4 on average", { n: done.length, mean: mean.toFixed(1) }), tabIndex: -1 }),
      make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, head, body)), again);
    mount.querySelector("h2").focus({ preventScroll: true });
    return undefined;
  };

  open(mount, "book/interview/bank.json", (questions) => {
    bank = questions;
    choose();
  });
})();
