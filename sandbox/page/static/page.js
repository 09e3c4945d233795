// Everything works without this file. With it, forms open as dialogs, the page keeps itself up to
// date, times count on, and texts can be copied.
"use strict";

// --- times -------------------------------------------------------------------------------------

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

function distance(moment) {
  const seconds = Math.round((Date.now() - new Date(moment)) / 1000);
  const [size, unit] = UNITS.find(([least]) => Math.abs(seconds) >= least) ?? [1, ""];
  if (!unit) return "just now";
  const count = Math.abs(Math.floor(seconds / size));
  const words = count === 1 ? `${count} ${unit}` : `${count} ${unit}s`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

function countOn() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const words = distance(time.dateTime);
    if (time.textContent !== words) time.textContent = words;
  }
}

// --- the live parts ----------------------------------------------------------------------------

function put(id, html) {
  const place = document.getElementById(id);
  if (!place) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = place.querySelector(".scroll")?.scrollTop;
  if (id === "live-news") place.textContent = html;
  else place.innerHTML = html;
  showCopyButtons();
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const scroll = place.querySelector(".scroll");
  if (scroll && scrolled) scroll.scrollTop = scrolled;
}

function openStream(address) {
  const lost = document.getElementById("live-lost");
  const stream = new EventSource(address);
  stream.addEventListener("open", () => { lost.hidden = true; });
  stream.addEventListener("parts", (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) put(id, html);
    document.documentElement.dataset.live = "yes";
  });
  stream.addEventListener("signed-out", () => {
    stream.close();
    location.assign("/login?ended=1");
  });
  stream.addEventListener("error", () => {
    lost.hidden = false;
    // A stream that is refused for good means that the session ended while nobody listened.
    if (stream.readyState === EventSource.CLOSED) location.assign("/keys");
  });
  return stream;
}

// Browsers open six connections to one address: a page that nobody sees gives its own back.
function stayLive() {
  const address = document.getElementById("main")?.dataset.live;
  if (!address) return;
  let stream = openStream(address);
  document.addEventListener("visibilitychange", () => {
    stream.close();
    if (!document.hidden) stream = openStream(address);
  });
  addEventListener("pagehide", () => stream.close());
}

// --- dialogs -----------------------------------------------------------------------------------

function sheetIn(html) {
  return new DOMParser().parseFromString(html, "text/html").querySelector("[data-sheet]");
}

function fill(dialog, sheet) {
  dialog.replaceChildren(document.adoptNode(sheet));
  showCopyButtons();
  dialog.querySelector("[autofocus]")?.focus();
}

async function openSheet(link) {
  const answer = await fetch(link.href);
  const sheet = answer.redirected ? null : sheetIn(await answer.text());
  if (!sheet) return location.assign(answer.redirected ? answer.url : link.href);
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "sheet-title");
  dialog.dataset.from = link.id;
  dialog.addEventListener("close", () => {
    dialog.remove();
    document.getElementById(dialog.dataset.from)?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  fill(dialog, sheet);
}

async function sendSheet(dialog, form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  const answer = await fetch(form.action, { method: "POST", body });
  const sheet = sheetIn(await answer.text());
  if (sheet) return fill(dialog, sheet);
  // The page itself: go where the form has led, with its message.
  const there = new URL(answer.url);
  if (!there.hash) there.hash = dialog.querySelector("a[href*='#']")?.hash ?? "";
  location.assign(there);
}

function failed(dialog, error) {
  const said = document.createElement("p");
  said.className = "error";
  said.setAttribute("role", "alert");
  said.textContent = `The console did not answer (${error.message}); nothing is known to be saved. Try again.`;
  dialog.querySelector("form")?.prepend(said);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-opens]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    openSheet(link).catch(() => location.assign(link.href));
  }
  const cancel = event.target.closest("dialog a[data-cancel]");
  if (cancel) {
    event.preventDefault();
    cancel.closest("dialog").close();
  }
});

document.addEventListener("submit", (event) => {
  const dialog = event.target.closest("dialog");
  if (!dialog) return;
  event.preventDefault();
  sendSheet(dialog, event.target, event.submitter).catch((error) => failed(dialog, error));
});

// --- copying -----------------------------------------------------------------------------------

function showCopyButtons() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}

const ANSWER_MS = 3000;

// The button says for a while what came of it.
function answer(button, words) {
  button.dataset.label ??= button.textContent;
  button.textContent = words;
  document.getElementById("live-news")?.replaceChildren(words);
  setTimeout(() => { button.textContent = button.dataset.label; }, ANSWER_MS);
}

async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text);
    answer(button, button.dataset.copied);
  } catch {
    // Without the permission it is at least shown and selected, for the keys that everybody knows.
    source.hidden = false;
    if (source.select) source.select();
    else getSelection().selectAllChildren(source);
    answer(button, "Press Ctrl+C");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// --- at the start ------------------------------------------------------------------------------

showCopyButtons();
setInterval(countOn, 1000);
stayLive();

// The message about the form that was just sent gets the focus, so that it is heard, and Tab goes
// on from there. Going to the address's #section takes the focus away, so this comes after it.
function showSaid() {
  const said = document.querySelector("[data-said]");
  if (!said) return;
  history.replaceState(null, "", `/keys${location.hash}`);
  requestAnimationFrame(() => setTimeout(() => said.focus()));
}
if (document.readyState === "complete") showSaid();
else addEventListener("load", showSaid);
