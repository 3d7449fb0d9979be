// Loads what a page with a playground needs: its style, and scripts in this order. Classic scripts
// and no fetch, so that the page also works from a folder.
(function () {
  "use strict";

  const [, folder, stamp] = /^([^?]*\/)[^?]*(.*)$/.exec(document.currentScript.src);
  const loaded = new Map();

  function load(name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((done, failed) => {
        const script = document.createElement("script");
        Object.assign(script, { src: folder + name + ".js" + stamp, async: false, onload: done });
        script.onerror = () => failed(new Error(name + ".js did not load"));
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  globalThis.kdPlayground = { load };
  const style = document.createElement("link");
  Object.assign(style, { rel: "stylesheet", href: folder + "playground.css" + stamp });
  document.head.append(style);
  const full = document.querySelector('[data-playground="full"]');
  ["engine", "data", ...(full ? ["presets", "measured"] : []), "page"].forEach(load);
})();
