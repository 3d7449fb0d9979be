// The search: sections ranked by BM25, where words of a title count most. Same index for the dialog and search.html.
// It has both languages: first what is in the reader's, and beside it where the same section is in the other.
const STOP = new Set(("a an and are as at be been but by can do does did for from had has have how i in into is it its of on or " +
  "so such that the their then there these they this to was we were what when where which who will with you your").split(" "));
const K1 = 1.2, B = 0.6, MOST = 20;
const HAN = /[\u4e00-\u9fff]/;
const WEIGHT = { t: 3, h: 6, x: 1, c: 0.3, w: 3 };
// One spelling for both sides of the sea, and for a few names that people write in two ways.
const SPELLINGS = [
  [/isation/g, "ization"], [/ise(d|s|r)?\b/g, "ize$1"], [/ising\b/g, "izing"], [/yse(d|s|r)?\b/g, "yze$1"],
  [/(col|behavi|fav|hon|lab|neighb|rum)our/g, "$1or"], [/(cent|fib|met)re\b/g, "$1er"], [/ell(ed|ing|er)\b/g, "el$1"],
  [/ogue\b/g, "og"],
];
// Words that end in -ise on both sides.
const KEEP = /^(?:otherwise|noise|precise|exercise|raise|rise|wise|likewise|promise|surprise|concise|advise|arise)/;

const stem = (word) => {
  if (word.length < 4 || /[^a-z]/.test(word)) return word;
  // -ization before -ation, which it ends in.
  let root = word.replace(/(?:izations?|izing|ized?|izers?|izes)$/, "iz").replace(/(?:ations?|ating|ated?|ators?)$/, "at");
  root = root.replace(/(?:sses)$/, "ss").replace(/ies$/, "y").replace(/([^s])s$/, "$1").replace(/(?:ments?|ness|ally|ly)$/, "");
  root = root.replace(/(?:ing|ed|er)$/, (end) => (root.length - end.length >= 4 ? "" : end)).replace(/(?:ion|e)$/, "");
  return root.length >= 3 ? root : word;
};

/** Cut a text into the forms under which its words are found; Chinese into pairs of characters. */
export const words = (text) => {
  const plain = text.replace(/²/g, " squared").normalize("NFKD").replace(/[\u0300-\u036f]/g, "");
  // KLDivLoss is found whole, and by its parts.
  const found = [];
  const named = (plain.match(/[A-Za-z0-9]+|[\u4e00-\u9fff]+/g) ?? []).flatMap((word) => {
    const parts = word.split(/(?<=[a-z0-9])(?=[A-Z][a-z])/);
    return parts.length > 1 ? [word, ...parts] : parts;
  });
  for (const word of named.map((name) => name.toLowerCase())) {
    if (HAN.test(word)) {
      for (let i = 0; i < Math.max(1, word.length - 1); i += 1) found.push(word.slice(i, i + 2));
    } else {
      found.push(stem(KEEP.test(word) ? word : SPELLINGS.reduce((form, [from, to]) => form.replace(from, to), word)));
    }
  }
  return found;
};

/** Count the words of the sections once. */
export const prepare = (sections) => {
  const postings = new Map();
  let total = 0;
  const lengths = sections.map((section, number) => {
    const counts = new Map();
    for (const [part, weight] of Object.entries(WEIGHT)) {
      for (const word of words([section[part] ?? ""].flat().join("\n"))) counts.set(word, (counts.get(word) ?? 0) + weight);
    }
    for (const [word, count] of counts) {
      if (!postings.has(word)) postings.set(word, []);
      postings.get(word).push([number, count]);
    }
    const length = words(section.x).length + 20;
    total += length;
    return length;
  });
  return { sections, postings, lengths, mean: total / sections.length };
};

/** Return the sections that have the words of a question, best first. */
export const find = ({ sections, postings, lengths, mean }, question) => {
  const asked = [...new Set(words(question))];
  const telling = asked.filter((word) => !STOP.has(word));
  const scores = new Map();
  const wanted = telling.length ? telling : asked;
  wanted.forEach((word, position) => {
    // While one types, the last word may be a beginning.
    const last = position === wanted.length - 1 && word.length > 2 && !postings.has(word);
    // A single character is looked for in all pairs.
    const lone = word.length === 1 && HAN.test(word);
    const forms = last || lone
      ? [...postings.keys()].filter((form) => (lone ? form.includes(word) : form.startsWith(word))).slice(0, 30) : [word];
    const best = new Map();
    for (const form of forms) {
      const list = postings.get(form) ?? [];
      const rare = Math.log(1 + (sections.length - list.length + 0.5) / (list.length + 0.5));
      for (const [number, count] of list) {
        const score = (rare * count * (K1 + 1)) / (count + K1 * (1 - B + (B * lengths[number]) / mean));
        best.set(number, Math.max(best.get(number) ?? 0, score));
      }
    }
    for (const [number, score] of best) {
      const [sum, hits] = scores.get(number) ?? [0, 0];
      scores.set(number, [sum + score, hits + 1]);
    }
  });
  const whole = words(question).join(" ");
  const told = new Set();
  return [...scores].map(([number, [sum, hits]]) => {
    const section = sections[number];
    const title = words(section.h || section.t).join(" ");
    let score = sum * (hits / wanted.length) ** 2;
    if (title === whole) score *= section.h ? 2 : 4;
    else if (title.includes(whole) || (section.h && words(section.t).join(" ").includes(whole))) score *= 1.3;
    if (section.p.includes("/api/") || section.p.endsWith("references.html")) score *= 0.6;
    // A chapter explains what a question only asks; who types the question itself wants its answer.
    if (section.w?.some((wording) => words(wording).join(" ") === whole)) score *= 4;
    else if (/\/interview\/(?!glossary)/.test(section.p)) score *= 0.45;
    if (section.other) score *= 0.7;
    return { section, score };
  }).sort((one, other) => other.score - one.score).map(({ section }) => section).filter((section) => {
    // The same section in two languages is one place.
    const place = placeOf(section);
    return !told.has(place) && told.add(place);
  }).slice(0, MOST);
};

const placeOf = ({ p, a }) => `${p}#${a}`;

// Pieces of a text, and whether a piece is what was asked for: words of letters, runs of Chinese characters.
const pieces = (text, asked) => (text.match(/[\u4e00-\u9fff]+|[^\s\u4e00-\u9fff]+\s*|\s+/g) ?? []).flatMap((run) => {
  if (!HAN.test(run)) return [[run, words(run).some((form) => asked.has(form) && !STOP.has(form))]];
  const marks = [...run].map((_, i) => [i - 1, i].some((at) => at >= 0 && asked.has(run.slice(at, at + 2))) || asked.has(run[i]));
  return [...run].map((character, i) => [character, marks[i]]);
});

const excerpt = (text, asked) => {
  const found = pieces(text, asked);
  const wide = HAN.test(text) ? 90 : 34; // pieces that fill three lines
  const from = Math.max(0, found.findIndex(([, marked]) => marked) - Math.floor(wide / 4));
  const paragraph = document.createElement("p");
  if (from) paragraph.append("… ");
  let mark;
  for (const [piece, marked] of found.slice(from, from + wide)) {
    if (!marked) mark = undefined;
    else if (!mark) paragraph.append((mark = document.createElement("mark")));
    (mark ?? paragraph).append(piece);
  }
  if (from + wide < found.length) paragraph.append("…");
  return paragraph;
};

const NAMES = { "zh-CN": "中文", en: "English" };
const { _ } = globalThis;
let fetched;

// The sections of both languages; without a network the reader's may be all there is.
const fetchAll = async (base) => {
  const chinese = document.documentElement.lang === "zh-CN";
  const folders = chinese ? ["", "../"] : ["", "zh/"];
  const parts = await Promise.all(folders.map(async (folder) => {
    const asked = fetch(new URL(`${base}${folder}search.json`, location.href)).then((answer) => answer.json());
    return folder ? asked.catch(() => []) : asked;
  }));
  return parts.flatMap((part, n) => part.map((section) => ({
    ...section, folder: folders[n], other: n > 0, language: chinese === (n > 0) ? "en" : "zh-CN",
  })));
};

/**
 * Make a form search as one types. On the page search.html the question stands in the address. A form that stands in a
 * page waits for the first letter; `only` is the folder that it looks into.
 */
export const attach = async (place, base, { inAddress = false, waits = false, only = "" }) => {
  let index;
  const twins = new Map();
  const [input, status, list] = ["input", ".search-status", ".search-results"].map((part) => place.querySelector(part));
  const address = ({ p, a, folder, language }) => Object.assign(
    document.createElement("a"), { href: `${base}${folder}${p}${a && `#${a}`}`, lang: language });
  const show = () => {
    if (!index) return;
    const question = input.value.trim();
    const asked = new Set(words(question));
    const found = question ? find(index, question) : [];
    list.replaceChildren(...found.map((section) => {
      const { t, h, x, c } = section;
      const link = address(section);
      link.append(Object.assign(document.createElement("b"), { textContent: h || t }));
      if (h) link.append(Object.assign(document.createElement("small"), { textContent: t }));
      link.append(excerpt(words(x).some((form) => asked.has(form)) ? x : c || x, asked));
      const item = document.createElement("li");
      item.append(link);
      const twin = twins.get(placeOf(section))?.find((one) => one !== section);
      if (twin) {
        const beside = address(twin);
        beside.className = "search-twin";
        beside.textContent = `${NAMES[beside.lang]}: ${twin.h || twin.t}`;
        item.append(beside);
      }
      return item;
    }));
    const places = found.length === MOST ? _("The best {n} places", { n: MOST }) : _("{n} places", { n: found.length });
    status.textContent = question && (found.length ? places : _("Nothing found."));
    if (inAddress) history.replaceState(null, "", question ? `?q=${encodeURIComponent(question)}` : location.pathname);
  };
  if (inAddress) input.value = new URLSearchParams(location.search).get("q") ?? "";
  input.addEventListener("input", show);
  place.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  place.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const stops = [input, ...list.querySelectorAll("a:not(.search-twin)")];
    const next = stops[stops.indexOf(document.activeElement) + step];
    if (step && next) { event.preventDefault(); next.focus(); }
  });
  if (inAddress) input.focus();
  const load = async () => {
    fetched ??= fetchAll(base);
    index = prepare((await fetched).filter(({ p }) => p.startsWith(only)));
    for (const section of index.sections) twins.set(placeOf(section), [...(twins.get(placeOf(section)) ?? []), section]);
    show();
  };
  // The page alone asks for nothing: the index comes with the first letter.
  if (waits && !input.value) input.addEventListener("input", load, { once: true });
  else await load();
};
