// What the mock interview and Spot the bug share: elements, keys, chance, and what a browser keeps.
"use strict";
globalThis.kdInterview = (() => {
  const { _ } = globalThis;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const html = (className, text) => make("div", { className, innerHTML: text });
  const button = (textContent, act, className = "button") => {
    const made = make("button", { type: "button", className, textContent });
    made.addEventListener("click", act);
    return made;
  };

  /** Keys go to whom the last call named, unless a control has a use for them. */
  const keys = () => {
    let turn = () => {};
    document.addEventListener("keydown", (event) => {
      if (event.target.closest?.("input, select, textarea, a, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest?.("button") && (event.key === "Enter" || event.key === " ")) return;
      turn(event);
    });
    return (next) => { turn = next; };
  };

  /** The same numbers from 0 to 1 for the same seed (mulberry32). */
  const chance = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const shuffled = (list, random = Math.random) => {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  };

  /** What this browser keeps under a name; it may forbid it. */
  const kept = (name) => {
    try { return JSON.parse(localStorage.getItem(name)) ?? {}; } catch { return {}; }
  };
  const keep = (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* then nothing is kept */ } };

  /** Fetch the content of a page, say so, and begin; afterwards the page needs no network. */
  const open = (mount, file, begin) => {
    mount.textContent = _("The questions are coming …");
    // Typefaces load when a letter needs them, which may be when the network is gone.
    const unused = document.documentElement.lang === "zh-CN" ? /kd text/ : /kd beside han/;
    for (const face of document.fonts) if (!unused.test(face.family)) face.load().catch(() => {});
    fetch(new URL(`${document.documentElement.dataset.root}${file}`, location.href))
      .then((answer) => { if (!answer.ok) throw new Error(answer.statusText); return answer.json(); })
      .then(begin)
      .catch((error) => { mount.textContent = _("The questions could not be loaded. Reload the page."); throw error; });
  };
  return { make, html, button, keys, chance, shuffled, kept, keep, open };
})();
