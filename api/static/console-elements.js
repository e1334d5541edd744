// Elements, and numbers and times in words. What callers sent becomes text nodes, never markup; the page's policy
// (Trusted Types) forbids the other way.

import { encode, may } from "./console-service.js";

const SHOWN_FAULTS = 20;
/** How a status looks; a class of the style sheet. */
export const LOOKS = {
  queued: "quiet", running: "now", succeeded: "good", partially_succeeded: "warn", failed: "bad", canceled: "quiet",
  expired: "warn",
};

export const find = (id) => document.getElementById(id);

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== false && child != null));
  return element;
}

/** Make the children of an element like those of another, in place: focus, selection and what was typed stay. */
export function morph(element, wanted) {
  const keys = new Set([...wanted.children].map((child) => child.dataset.key));
  const kept = new Map();
  for (const child of [...element.children]) {
    const key = child.dataset.key;
    if (key && keys.has(key)) kept.set(key, child);
    else if (key) child.remove();
  }
  let place = element.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.dataset?.key;
    const old = key ? kept.get(key) : place?.dataset?.key ? null : place;
    if (old?.nodeName !== next.nodeName) {
      element.insertBefore(next, place);
      continue;
    }
    if (old !== place) element.insertBefore(old, place);
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== next.data) old.data = next.data;
    } else {
      morphAttributes(old, next);
      morph(old, next);
    }
    place = old.nextSibling;
  }
  while (place) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

export function morphAttributes(element, wanted) {
  for (const { name } of [...element.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") element.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
}

/** A table; each row begins with a key, by which it is known again when the table is shown anew. */
export function table(caption, columns, rows) {
  const head = columns.map(([name, look]) => h("th", { role: "columnheader", class: look }, name));
  const makeCell = (cell, index) => {
    const [name, look] = columns[index];
    return h(index ? "td" : "th", { role: index ? "cell" : "rowheader", class: look, "data-label": name }, cell);
  };
  const body = rows.map(([key, ...cells]) => h("tr", { role: "row", "data-key": key }, cells.map(makeCell)));
  // The roles say what the elements are by themselves, but on a narrow screen, where they are laid out as cards.
  return h("div", { class: "table", tabindex: "0", role: "group", "aria-label": caption },
    h("table", { role: "table" },
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), h("tbody", { role: "rowgroup" }, body)));
}

/** A button that does one of the actions of `console.js`, with what it shall know as data. */
export function button(action, label, data, attributes) {
  const kept = Object.entries(data).map(([name, value]) => [`data-${name}`, value]);
  return h("button", { type: "button", "data-action": action, ...Object.fromEntries(kept), ...attributes }, label);
}

/** Names with their values; without those that have none. */
export function facts(pairs) {
  const isThere = ([, value]) => value != null && value !== "" && value !== false && value.length !== 0;
  const shown = pairs.filter(isThere).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]);
  return h("dl", { class: "facts" }, shown);
}

export const badge = (look, text) => h("span", { class: `badge ${look}` }, text);
export const words = (text) => text.replaceAll("_", " ");
export const shorten = (id) => `${id.slice(0, 11)}…${id.slice(-8)}`;
export function showValue(value) {
  if (value === null) return "—";
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export const count = (number) => new Intl.NumberFormat("en").format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 2 ** 20 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

export function span(seconds) {
  if (seconds < 1) return seconds < 0.001 ? "under 1 ms" : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

export function time(text) {
  if (!text) return null;
  const seconds = (Date.now() - new Date(text)) / 1000;
  const says = Math.abs(seconds) < 1 ? "now" : seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  return h("time", { datetime: text, title: new Date(text).toLocaleString(), class: "nobreak" }, says);
}

/** A problem document in words: what is wrong, where, and when to try again. */
export function showProblem(problem) {
  const isOurs = problem.request && problem.status >= 500; // the log has more of it
  const again = problem.retryAfter && problem.passes ? ` Again in ${span(problem.retryAfter)}.` : "";
  const places = problem.errors.slice(0, SHOWN_FAULTS).map((fault) => {
    const { row, line, column } = fault;
    const place = [row != null && `row ${row}`, line != null && `line ${line}`, column && `column ${column}`];
    const where = place.filter(Boolean).join(", ") || fault.pointer;
    return h("li", null, where ? `${where}: ` : "", fault.detail);
  });
  return h("div", { class: "problem" },
    h("div", null,
      h("p", null, h("strong", null, problem.title), problem.message ? `. ${problem.message}` : ".", again),
      places.length > 0 && h("ul", null, places),
      isOurs && h("p", { class: "soft" }, "Request ", h("code", null, problem.request))));
}

export const showStatus = (job) => badge(LOOKS[job.status] ?? "quiet", words(job.status));

export function linkModel(reference) {
  const [name, version] = reference.split(":");
  return may("models:read") ? h("a", { href: `#/models/${encode(name)}?version=${version}` }, reference) : reference;
}

export const linkJob = (id, text = shorten(id)) =>
  h("a", { href: `#/jobs/${id}`, class: "mono nobreak", title: id }, text);

/** Whether these are the probabilities of one output's classes, not of several outputs. */
export const isFlat = (shares) => Array.isArray(shares) && shares.every((share) => typeof share === "number");
