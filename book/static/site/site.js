// What a page does: colors, search, copying, clocks, bets, previews, marks of what was read. Without it all text stands.
"use strict";
(() => {
  // In the language of the page; English is the key, and a Chinese page has loaded the others.
  globalThis._ = (text, values = {}) =>
    (globalThis.kdlearnTexts?.[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  const { _ } = globalThis;
  const root = document.documentElement;
  const base = root.dataset.root;
  const scripts = document.currentScript.src;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  // A browser may forbid storage; then nothing is remembered, and everything else works.
  const memory = {
    get: (key) => { try { return localStorage.getItem(`kdlearn:${key}`); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(`kdlearn:${key}`, value); } catch { /* not kept */ } },
  };

  // Colors: as the system has them, light, dark.
  const theme = document.querySelector(".bar-theme");
  const themes = { auto: _("Colors: as the system has them"), light: _("Colors: light"), dark: _("Colors: dark") };
  const label = () => { theme.ariaLabel = theme.title = themes[root.dataset.theme] ?? themes.auto; };
  label();
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    root.dataset.theme = names[(names.indexOf(root.dataset.theme) + 1) % names.length];
    memory.set("theme", root.dataset.theme);
    label();
  });

  // The other language: the same place of the same page.
  const other = document.querySelector(".bar-language");
  for (const way of ["click", "auxclick"]) {
    other?.addEventListener(way, () => {
      const passed = all("main section[id], main dt[id]").filter((part) => part.getBoundingClientRect().top < innerHeight / 3);
      other.hash = scrollY > 80 ? passed.pop()?.id ?? "" : "";
    });
  }

  // Sheets: a link in the list of contents closes it.
  for (const sheet of all("[popover]")) {
    sheet.addEventListener("click", (event) => {
      if (event.target.closest("a") && sheet.matches(":popover-open")) sheet.hidePopover();
    });
    const reveal = () => sheet.querySelector("a.current")?.scrollIntoView({ block: "nearest" });
    reveal();
    sheet.addEventListener("toggle", reveal);  // what is closed does not scroll
  }
  const current = document.querySelector(".chapters a.current");
  if (current) current.ariaCurrent = "page";

  // Search: `/` or the button opens it; the page search.html has the same form.
  const field = document.querySelector("form[data-search]");
  const search = () => import(new URL("search.js", scripts));
  const only = field?.dataset.search;
  if (field) search().then(({ attach }) => attach(field.closest("section"), base, { inAddress: !only, waits: true, only }));
  let dialog;
  const openSearch = () => {
    if (!dialog) {
      dialog = make("dialog", { className: "search-dialog", ariaLabel: _("Search") });
      dialog.innerHTML =
        `<form class="search-form" role="search"><label>${_("Words to look for")}<input type="search" name="q" ` +
        'autocomplete="off" spellcheck="false"></label></form><p class="search-status" role="status"></p>' +
        '<ol class="search-results"></ol>';
      dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
      const close = make("button", { type: "button", className: "search-close", textContent: _("Close") });
      close.addEventListener("click", () => dialog.close());
      dialog.prepend(close);
      document.body.append(dialog);
      // What is typed meanwhile stands in the field when the search has come.
      search().then(({ attach }) => attach(dialog, base, {})).catch(() => {
        dialog.querySelector(".search-status").textContent =
          _("The search did not load. It needs a server: a page that was opened from a folder has none.");
      });
    }
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("input").focus();
  };
  if (!field || only) {
    document.querySelector(".bar-search").addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      openSearch();
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
      const asked = event.key === "/" || (event.key === "k" && (event.metaKey || event.ctrlKey));
      if (asked && !typing) { event.preventDefault(); openSearch(); }
    });
  }

  // Copying: code, without the prompts of examples.
  for (const block of all(".cell_input .highlight, div[class^='highlight-']:not(.cell_output *) > .highlight")) {
    if (block.querySelector(".copy")) continue;
    const button = make("button", { className: "copy", type: "button", textContent: _("Copy") });
    button.addEventListener("click", async () => {
      const code = block.querySelector("pre").cloneNode(true);
      all(".gp, .go", code).forEach((part) => part.remove());
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = _("Copied");
      setTimeout(() => { button.textContent = _("Copy"); }, 1500);
    });
    block.append(button);
  }

  // Clocks: an answer said aloud, against its time.
  for (const clock of all(".clock")) {
    const seconds = Number(clock.dataset.seconds);
    const invitation = seconds < 60
      ? _("Say it aloud: start {n} seconds", { n: seconds }) : _("Say it aloud: start {n} minutes", { n: seconds / 60 });
    const start = make("button", { type: "button", textContent: invitation });
    const bar = make("progress", { max: seconds, value: 0, hidden: true, ariaLabel: _("Time of the answer") });
    const said = make("span", { role: "status" });
    let timer;
    const stop = (text) => {
      clearInterval(timer);
      timer = undefined;
      start.textContent = text;
      bar.hidden = true;
    };
    start.addEventListener("click", () => {
      if (timer) { stop(invitation); return; }
      const began = performance.now();
      bar.hidden = false;
      said.textContent = "";
      timer = setInterval(() => {
        bar.value = (performance.now() - began) / 1000;
        const left = Math.max(0, Math.ceil(seconds - bar.value));
        start.textContent = _("Stop ({n} s left)", { n: left });
        if (!left) { stop(_("Once more")); said.textContent = _("Time. Did you get to the last sentence? "); }
      }, 250);
    });
    clock.append(said, start, bar);
  }

  // Bets: a number, kept in the browser; further down it stands beside the answer.
  const answers = new Map();
  const showBet = (id) => {
    for (const answer of all(`[data-answers="${CSS.escape(id)}"]`)) {
      const said = memory.get(`bet:${id}`);
      const unit = document.querySelector(`[data-bet="${CSS.escape(id)}"]`)?.dataset.unit ?? "";
      const line = answers.get(answer) ?? make("p", { className: "bet-result" });
      if (!answers.has(answer)) answer.querySelector(".callout-title").after(line);
      answers.set(answer, line);
      line.hidden = said === null;
      line.textContent = _("You said {said}, it is {value}{unit}.", { said, value: answer.dataset.value, unit: unit && ` ${unit}` });
    }
  };
  for (const bet of all(".bet")) {
    const { bet: id, unit, question } = bet.dataset;
    const input = make("input", { type: "number", step: "any", inputMode: "decimal", required: true });
    const said = make("p", { className: "bet-said", role: "status" });
    const form = make(
      "form", { className: "bet-form" },
      make("label", {}, question || (unit ? _("Your number, in {unit}", { unit }) : _("Your number")), input),
      make("button", { textContent: _("Bet") }), said,
    );
    const kept = memory.get(`bet:${id}`);
    if (kept !== null) { input.value = kept; said.textContent = _("You said {said}. Read on to see.", { said: kept }); }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      memory.set(`bet:${id}`, input.value);
      said.textContent = _("You said {said}. Read on to see.", { said: input.value });
      showBet(id);
    });
    bet.append(form);
    showBet(id);
  }

  // Previews: a term or a source, where it is named.
  const preview = make("div", { className: "preview", popover: "manual", role: "tooltip", id: "preview" });
  document.body.append(preview);
  const pages = new Map();
  const entry = async (link) => {
    const url = new URL(link.href);
    const anchor = decodeURIComponent(url.hash.slice(1));
    if (!pages.has(url.pathname)) {
      pages.set(url.pathname, fetch(url.pathname).then((answer) => answer.text())
        .then((text) => new DOMParser().parseFromString(text, "text/html")));
    }
    const found = (await pages.get(url.pathname)).getElementById(anchor);
    if (!found) return null;
    let meaning = found;
    if (found.tagName === "DT") {
      meaning = found.nextElementSibling;
      while (meaning?.tagName === "DT") meaning = meaning.nextElementSibling;
    }
    const copy = document.importNode(meaning, true);
    all(".headerlink, .label, .backrefs", copy).forEach((part) => part.remove());
    copy.removeAttribute("id");
    all("[id]", copy).forEach((part) => part.removeAttribute("id"));
    const title = found.tagName === "DT" ? [make("b", { textContent: found.textContent.replace(/[#¶]\s*$/, "").trim() })] : [];
    return [...title, ...copy.childNodes];
  };
  const terms = "a[href*='glossary.html#term-'], a[href*='references.html#cite-']";
  let shown, waiting;
  const hide = () => {
    clearTimeout(waiting);
    if (preview.matches(":popover-open")) preview.hidePopover();
    shown?.removeAttribute("aria-describedby");
    shown = undefined;
  };
  const show = async (link) => {
    const parts = await entry(link).catch(() => null);
    if (!parts || shown !== link) return;
    preview.replaceChildren(...parts);
    preview.showPopover();
    const place = link.getClientRects()[0] ?? link.getBoundingClientRect();
    const box = preview.getBoundingClientRect();
    preview.style.left = `${Math.max(16, Math.min(place.left, innerWidth - box.width - 16))}px`;
    const below = place.bottom + 8;
    preview.style.top = `${below + box.height < innerHeight ? below : Math.max(8, place.top - box.height - 8)}px`;
    link.setAttribute("aria-describedby", "preview");
  };
  const main = document.querySelector("main");
  const onPage = (event) => event.target.closest?.(terms);
  const begin = (link, after) => {
    if (shown === link) return;
    hide();
    shown = link;
    waiting = setTimeout(() => show(link), after);
  };
  main.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse" && onPage(event)) begin(onPage(event), 200); });
  main.addEventListener("pointerout", (event) => {
    if (event.pointerType === "mouse" && onPage(event) && !preview.contains(event.relatedTarget)) hide();
  });
  preview.addEventListener("pointerleave", hide);
  main.addEventListener("focusin", (event) => { if (onPage(event)?.matches(":focus-visible")) begin(onPage(event), 0); });
  main.addEventListener("focusout", (event) => { if (onPage(event)) hide(); });
  // A first tap shows, a second goes there.
  main.addEventListener("click", (event) => {
    const link = onPage(event);
    if (!link) { hide(); return; }
    if (event.pointerType === "touch" && shown !== link) { event.preventDefault(); begin(link, 0); }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", () => { if (preview.matches(":popover-open")) hide(); }, { passive: true });

  // Read: a chapter whose end was seen has a mark in every list.
  const read = new Set((memory.get("read") ?? "").split(" ").filter(Boolean));
  const pageOf = (link) => new URL(link.href).pathname.replace(/^.*\/book\//, "").replace(/\.html$/, "");
  const mark = () => {
    for (const link of all(".chapters a, .route a")) {
      const done = read.has(pageOf(link));
      (link.closest(".route li") ?? link).classList.toggle("read", done);
      if (done) link.title = _("You have read this");
    }
  };
  mark();
  const end = document.querySelector(".sources, .turn");
  if (end && root.dataset.page?.match(/^book\/(?!index$)/)) {
    new IntersectionObserver(([{ isIntersecting }], watch) => {
      if (!isIntersecting || scrollY < innerHeight) return;
      watch.disconnect();
      read.add(root.dataset.page.replace("book/", ""));
      memory.set("read", [...read].join(" "));
      mark();
    }).observe(end);
  }

  // Contents: the section that is being read.
  const lines = new Map(all(".contents a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  if (lines.size) {
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) for (const [id, link] of lines) link.classList.toggle("here", id === target.id);
      }
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const id of lines.keys()) {
      const section = document.getElementById(id);
      if (section) watch.observe(section);
    }
  }

  // Paper: what is folded is printed too, and folds again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open]):not(.set-up *)");
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => { for (const fold of opened) fold.open = false; });

  // Offline: what was opened, and the interview, are stored when the page has nothing else to do. Not where data is dear.
  addEventListener("load", () => {
    if (!navigator.serviceWorker || !location.protocol.startsWith("http") || navigator.connection?.saveData) return;
    const first = !navigator.serviceWorker.controller;
    const store = async () => {
      await navigator.serviceWorker.register(new URL("../../worker.js", scripts));
      const { active } = await navigator.serviceWorker.ready;
      // This page came before its worker.
      if (first) active.postMessage([location.href, ...performance.getEntriesByType("resource").map(({ name }) => name)]);
    };
    (globalThis.requestIdleCallback ?? setTimeout)(() => store().catch(() => { /* forbidden */ }));
  });
})();
