// Reading without a network: the service worker of the site, begun by worker.js at its root, which book/tools/offline.py
// writes and which says BUILD, a digest of the built site, and SHELL, what is stored on the first visit. What a reader opens
// is stored too. A new build has a new cache, gets what the old one held, and deletes it.
"use strict";
const FAMILY = `kdlearn ${registration.scope} `;
const NAME = FAMILY + BUILD;
const PATIENCE = 3000; // milliseconds until a stored page stands in for a slow network
// Files to keep elsewhere: they are not read here.
const DOWNLOADS = /\/notebooks\/|\.(?:apkg|epub|pdf|zip)$/;
// Their addresses change with what they hold, or the whole cache does.
const STATIC = /\/(?:_static|_images)\//;
const NOT_STORED = `<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Not stored · kdlearn</title><h1>This page is not stored on your device</h1>
<p>It will be, once you have opened it with a network. <a href="${registration.scope}book/index.html">What is there: the first page</a></p>
<p lang="zh-CN">此页尚未存到本机：联网打开一次，以后离线也能读。</p>`;

// A page is the same whatever is asked or pointed at in it.
const address = (url) => url.split(STATIC.test(url) ? "#" : /[?#]/)[0];

const ask = async (cache, request) => {
  const answer = await fetch(request);
  if (answer.ok && !answer.redirected) cache.put(address(request.url), answer.clone()).catch(() => { /* the disk is full */ });
  return answer;
};

const answer = async (event) => {
  const { request } = event;
  const cache = await caches.open(NAME);
  const stored = await cache.match(address(request.url));
  if (stored && STATIC.test(request.url)) return stored;
  const asked = ask(cache, request);
  event.waitUntil(asked.catch(() => { /* no network */ }));
  if (stored) return Promise.race([asked.catch(() => stored), new Promise((done) => { setTimeout(done, PATIENCE, stored); })]);
  return asked.catch((error) => {
    if (request.mode !== "navigate") throw error;
    return new Response(NOT_STORED, { status: 503, headers: { "Content-Type": "text/html; charset=utf-8" } });
  });
};

const install = async () => {
  const cache = await caches.open(NAME);
  await cache.addAll(SHELL.map((path) => new Request(registration.scope + path, { cache: "no-cache" })));
  for (const name of await caches.keys()) {
    if (!name.startsWith(FAMILY) || name === NAME) continue;
    for (const { url } of await (await caches.open(name)).keys()) {
      // What the new site no longer has is left behind.
      if (!(await cache.match(url))) await cache.add(new Request(url, { cache: "no-cache" })).catch(() => {});
    }
  }
  await skipWaiting();
};

const activate = async () => {
  for (const name of await caches.keys()) if (name.startsWith(FAMILY) && name !== NAME) await caches.delete(name);
  await clients.claim();
};

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { method, url, headers } = event.request;
  if (method !== "GET" || headers.has("range") || !url.startsWith(registration.scope) || DOWNLOADS.test(address(url))) return;
  event.respondWith(answer(event));
});
