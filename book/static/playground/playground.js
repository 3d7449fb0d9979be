// The first of the playground's scripts: its style, and what loads digits.js when somebody asks for
// digits. The site has this and the other parts in one file. Classic scripts and no fetch, so that
// the page also works from a folder.
(function () {
  "use strict";

  const [, folder, stamp] = /^([^?]*\/)[^?]*(.*)$/.exec(document.currentScript.src);
  const loaded = new Map();

  function load(name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((done, failed) => {
        const script = document.createElement("script");
        Object.assign(script, { src: folder + name + ".js" + stamp, onload: done });
        script.onerror = () => failed(new Error(name + ".js did not load"));
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  const style = document.createElement("link");
  const styled = new Promise((done) => { style.onload = done; });
  Object.assign(style, { rel: "stylesheet", href: folder + "playground.css" + stamp });
  globalThis.kdPlayground = { load, styled };
  document.head.append(style);
})();
