// Spot the bug: read a program, choose what is wrong among four, see the symptom. All of it stays in the browser.
"use strict";
(() => {
  const { make, button, keys, chance, shuffled, kept, keep, open } = kdInterview;
  const mount = document.querySelector("[data-spot]");
  const KEY = "kdlearn:spot";
  const key = keys();
  // Of each puzzle whether its last answer was right, and what was chosen in the form.
  const seen = { found: {}, from: "", seed: 1, ...kept(KEY) };
  const save = () => keep(KEY, seen);
  const name = (puzzle) => `${puzzle.drill.id}/${puzzle.id}`;
  const hash = (text) => [...text].reduce((sum, letter) => (Math.imul(sum, 31) + letter.codePointAt(0)) | 0, 7);
  let chapters = [];
  let puzzles = [];
  let rest = []; // the puzzles to come, in their order

  const within = (from) => puzzles.filter((puzzle) => !from || puzzle.drill.id === from || puzzle.drill.chapter === from);
  const right = (list) => list.filter((puzzle) => seen.found[name(puzzle)]).length;

  const choose = () => {
    key(() => {});
    const from = make("select", { id: "spot-from" }, make("option", { value: "", textContent: "All drills" }),
      ...chapters.map((chapter) => make("optgroup", { label: chapter.title },
        make("option", { value: chapter.name, textContent: `All of: ${chapter.title.toLowerCase()}` }),
        ...chapter.drills.map((drill) => make("option", { value: drill.id, textContent: drill.title })))));
    const seed = make("input", { id: "spot-seed", type: "number", min: 1, step: 1, value: seen.seed, inputMode: "numeric" });
    from.value = seen.from;
    const count = make("p", { className: "mock-count", role: "status" });
    const start = button("Begin", () => begin(), "button first");
    const again = button("Forget what was found", () => {
      for (const puzzle of within(from.value)) delete seen.found[name(puzzle)];
      save();
      tell();
    });
    const tell = () => {
      seen.from = from.value;
      seen.seed = Math.max(1, Math.round(Number(seed.value)) || 1);
      save();
      const list = within(seen.from);
      const done = right(list);
      count.textContent = `${list.length} programs, ${done} of them found. ${done === list.length ? "All come again." : "Those that you found are left out."}`;
      again.disabled = !done;
    };
    from.addEventListener("change", tell);
    seed.addEventListener("change", tell);
    const begin = () => {
      tell();
      const list = within(seen.from);
      const open = list.filter((puzzle) => !seen.found[name(puzzle)]);
      rest = shuffled(open.length ? open : list, chance(seen.seed));
      ask();
    };
    mount.replaceChildren(
      make("div", { className: "mock-form" },
        make("label", { htmlFor: "spot-from", textContent: "From" }), from,
        make("label", { htmlFor: "spot-seed", textContent: "Order" }), seed),
      count, make("div", { className: "mock-buttons" }, start, again));
    tell();
  };

  /** The true diagnosis among three of other mistakes of the drill, none of which does the same. */
  const choices = (puzzle) => {
    const random = chance(hash(name(puzzle)) + seen.seed);
    const other = puzzle.drill.mistakes.filter((one) => one !== puzzle && !puzzle.alike.includes(one.id));
    // One of the same switch is nearest: its neighbors in the list.
    const place = (one) => Math.abs(puzzle.drill.mistakes.indexOf(one) - puzzle.drill.mistakes.indexOf(puzzle));
    const near = shuffled([...other].sort((a, b) => place(a) - place(b)).slice(0, 4), random).slice(0, 1);
    const far = shuffled(other.filter((one) => !near.includes(one)), random).slice(0, 2);
    return shuffled([puzzle, ...near, ...far], random);
  };

  const program = (lines, marks = new Set()) => make("pre", { className: "spot-code", tabIndex: 0 }, make("code", {},
    ...lines.map((line, i) => make("span", { className: marks.has(i) ? "spot-line spot-mark" : "spot-line", textContent: line || " " }))));

  const ask = () => {
    if (!rest.length) return finish();
    const puzzle = rest.shift();
    const lines = puzzle.code.split("\n");
    const list = within(seen.from);
    const title = make("h2", { textContent: puzzle.drill.title, tabIndex: -1 });
    const code = make("div", {}, program(lines));
    const answers = make("ol", { className: "mock-rubric spot-choices" });
    const offered = choices(puzzle);
    const buttons = offered.map((one, i) => {
      const made = button("", () => take(one));
      made.append(make("b", { textContent: `${i + 1}` }), ` ${one.says}`);
      answers.append(make("li", {}, made));
      return made;
    });
    const told = make("div", { className: "spot-told", role: "status" });
    const take = (chosen) => {
      const good = chosen === puzzle;
      seen.found[name(puzzle)] = good;
      save();
      buttons.forEach((made, i) => {
        made.disabled = true;
        made.ariaPressed = String(offered[i] === chosen);
        if (offered[i] === puzzle) made.classList.add("spot-true");
      });
      const marks = new Set(puzzle.mended.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i)));
      code.replaceChildren(program(lines, marks));
      const next = button(rest.length ? "Next program" : "How it went", ask, "button first");
      told.append(...tell(puzzle, chosen));
      told.lastChild.before(make("div", { className: "mock-buttons" }, next, button("Other drills", choose)));
      key((event) => {
        if (event.key === "Enter" || event.key === "n") { event.preventDefault(); ask(); }
        if (event.key === "Escape") choose();
      });
      told.scrollIntoView({ block: "nearest" });
      return undefined;
    };
    mount.replaceChildren(
      make("p", { className: "mock-head", textContent: `${right(list)} of ${list.length} found, ${rest.length + 1} to go.` }),
      title, make("p", { className: "spot-about" }, make("b", { textContent: "It should: " }), puzzle.drill.about),
      code, make("h3", { textContent: "What is wrong?" }), answers, told);
    title.focus({ preventScroll: true });
    key((event) => {
      const one = offered[Number(event.key) - 1];
      if (one) take(one);
      if (event.key === "Escape") choose();
    });
    scrollTo({ top: mount.offsetTop - 80 });
    return undefined;
  };

  const table = (caption, rows, heads) => make("div", { className: "scroll", tabIndex: 0 }, make("table", {},
    make("caption", { textContent: caption }),
    make("thead", {}, make("tr", {}, ...heads.map((textContent) => make("th", { textContent, scope: "col" })))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((textContent) => make("td", { textContent })))))));

  const rows = (drill, one) => Object.entries(one.shown ?? {}).map(([part, text]) => [part, text, drill.right[part] ?? "nothing"]);

  /** What a wrong choice would show in place of what is seen. */
  const instead = (puzzle, chosen) => {
    const [mine, its] = [puzzle, chosen].map((one) => ({ ...puzzle.drill.right, ...one.shown }));
    const part = [...new Set([...Object.keys(its), ...Object.keys(mine)])].find((one) => mine[one] !== its[one]);
    if (part) return `That would give ${its[part] ?? "nothing"} for ${part} on the input below; this program gives ${mine[part] ?? "nothing"}.`;
    if (chosen.elsewhere) return `That shows ${chosen.elsewhere.title.replace(/^./, (letter) => letter.toLowerCase())}: ${chosen.elsewhere.parts[0].slice(0, 2).join(" is ")}.`;
    return chosen.besides ? `Of that one would see: ${chosen.besides[0]}` : "";
  };

  const tell = (puzzle, chosen) => {
    const { drill, elsewhere } = puzzle;
    const parts = [];
    if (chosen === puzzle) parts.push(make("p", { className: "spot-verdict good", textContent: "Found." }));
    else {
      parts.push(make("p", { className: "spot-verdict", textContent: "Not that." }),
        make("p", { textContent: `${chosen.says} ${instead(puzzle, chosen)}` }));
    }
    parts.push(make("p", {}, make("b", { textContent: "The mistake: " }), puzzle.text,
      ...(puzzle.seen ? [` Seen ${puzzle.seen}.`] : [])));
    parts.push(make("h3", { textContent: "What one sees" }));
    if (puzzle.shown) parts.push(make("p", { className: "spot-given", textContent: `Input: ${drill.given}` }), table("On the example", rows(drill, puzzle), ["what", "this program", "right"]));
    if (elsewhere) {
      parts.push(make("p", { textContent: "On the drill's example every number is right." }),
        make("p", { className: "spot-given", textContent: `Input: ${elsewhere.given}` }),
        table(elsewhere.title, elsewhere.parts, ["what", "this program", "right"]));
    }
    if (!puzzle.shown && !elsewhere) parts.push(make("p", { textContent: "No number shows it." }));
    if (puzzle.besides) parts.push(make("ul", {}, ...puzzle.besides.map((textContent) => make("li", { textContent }))));
    parts.push(make("h3", { textContent: "Corrected" }));
    for (const [from, to, better] of puzzle.mended) {
      const where = from === to ? `After line ${from}:` : `In place of line${to - from > 1 ? `s ${from + 1} to ${to}` : ` ${from + 1}`}:`;
      parts.push(make("p", { className: "mock-count", textContent: better.length ? where : where.replace("In place of", "Leave out") }));
      if (better.length) parts.push(program(better));
    }
    const links = [make("a", { href: `../${drill.address}`, textContent: "Write it yourself in the drill" }),
      ...drill.asked.slice(0, 2).map((one) => make("a", { href: `questions/${one.id}.html`, textContent: one.title.replace(/[`$]/g, "") }))];
    if (drill.taught) links.splice(1, 0, make("a", { href: `../${drill.taught}`, textContent: "The chapter that teaches it" }));
    const others = make("ul", { className: "spot-links" }, ...links.map((link) => make("li", {}, link)));
    return [...parts, others];
  };

  const finish = () => {
    const list = within(seen.from);
    key(() => {});
    mount.replaceChildren(
      make("h2", { textContent: `${right(list)} of ${list.length} found`, tabIndex: -1 }),
      make("p", { textContent: "Those that you missed come again." }),
      button("Go on", choose, "button first"));
    mount.querySelector("h2").focus({ preventScroll: true });
    return undefined;
  };

  open(mount, "_static/interview/spot.json", (found) => {
    chapters = found;
    puzzles = chapters.flatMap((chapter) => chapter.drills.flatMap((drill) => {
      drill.chapter = chapter.name;
      for (const puzzle of drill.mistakes) puzzle.drill = drill;
      return drill.mistakes;
    }));
    choose();
  });
})();
