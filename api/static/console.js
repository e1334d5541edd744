// The console: which page is shown, what its parts watch, and what its user does.

import { badge, button, find, h, linkJob, morph, showProblem, size, words } from "./console-elements.js";
import { showFilters, showJob, showJobs, showLetters, watchJob } from "./console-jobs.js";
import { readService, showModel, showModels, showNow } from "./console-models.js";
import { fillForm, scoreFile, scoreRow, showForms } from "./console-scoring.js";
import {
  Problem, caller, change, encode, hasKey, keepKey, loadFile, may, poll, read, readChange, refresh, rest,
} from "./console-service.js";

const NOBODY = { tenant: "", key_id: null, scopes: [] };
const faults = new Map(); // parts of the page that cannot be read for now, and why
let page = new AbortController(); // aborted when another page is shown

/** Tell what came of an action: a text, elements, or a problem. */
function say(...said) {
  const box = said[0] instanceof Problem ? showProblem(said[0]) : h("div", { class: "done" }, h("p", null, said));
  box.append(button("hush", "Close", {}));
  find("said").replaceChildren(box);
}

function showFaults() {
  const [problem] = faults.values();
  morph(find("notice"), h("div", null, problem && showProblem(problem)));
}

function askForKey(problem) {
  const reason = hasKey() ? problem?.message : "This service asks for a key.";
  find("key-reason").textContent = problem ? reason : "";
  if (!find("key").open) find("key").showModal();
}

async function run(part, section) {
  const { signal } = page;
  const body = section.querySelector(".body");
  for (let failures = 0; !signal.aborted; ) {
    try {
      for await (const data of part.watch(signal)) {
        failures = 0;
        if (signal.aborted) return;
        section.classList.remove("stale");
        if (faults.delete(part.title)) showFaults();
        morph(body, h("div", null, part.show(data)));
        section.hidden = body.childNodes.length === 0;
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) return askForKey(error);
      section.hidden = false;
      if (!error.passes) return body.replaceChildren(showProblem(error));
      section.classList.add("stale");
      faults.set(part.title, error);
      showFaults();
      failures += 1;
      await rest(error.retryAfter ?? Math.min(2 ** failures, 30), signal);
    }
  }
}

function makePart(part, index) {
  const title = h("h2", { id: `part-${index}` }, part.title);
  const head = h("div", { class: "head" }, title, part.aside);
  const section = h("section", { "aria-labelledby": `part-${index}` }, head, h("div", { class: "body" }));
  const lacking = part.scopes.filter((scope) => !may(scope));
  if (lacking.length === 0) run(part, section);
  else section.lastChild.append(h("p", { class: "soft" }, `Your key lacks the scope ${lacking.join(", ")}.`));
  return section;
}

const listOf = (address, name) => async (signal) => (await read(address, { signal }))[name];
const PAGES = {
  "": () => ({
    title: "Overview",
    parts: [
      { title: "Queues and workers", scopes: ["models:read"], watch: poll(2, readService), show: showNow },
      {
        title: "Dead letters", scopes: ["jobs:read"], show: showLetters,
        watch: poll(10, listOf("v1/dead-letters", "dead_letters")),
      },
      {
        title: "Latest jobs", scopes: ["jobs:read"], show: (jobs) => showJobs({ jobs }),
        watch: poll(2, listOf("v1/jobs?limit=10", "jobs")), aside: h("a", { href: "#/jobs" }, "All jobs"),
      },
      { title: "Models", scopes: ["models:read"], watch: poll(10, listOf("v1/models", "models")), show: showModels },
    ],
  }),
  jobs: (id, query) => (id ? makeJobPage(id) : makeJobsPage(query)),
  models: makeModelPage,
};

const makeJobPage = (id) => ({
  title: `Job ${id}`,
  parts: [{ title: "State", scopes: ["jobs:read"], watch: watchJob(id), show: showJob }],
});

function makeJobsPage(query) {
  const address = `v1/jobs?${new URLSearchParams({ limit: "25", ...query })}`;
  const part = {
    title: "Newest first", scopes: ["jobs:read"], show: (found) => showJobs(found, query),
    watch: poll(2, (signal) => read(address, { signal })),
  };
  return { title: "Jobs", before: showFilters(query), parts: [part] };
}

function makeModelPage(name, query) {
  const readModel = async (signal) => {
    const model = await read(`v1/models/${encode(name)}`, { signal });
    const wanted = Number(query.version ?? model.aliases.champion);
    const found = model.versions.find((version) => version.version === wanted);
    return { model, version: found ?? model.versions.at(-1) };
  };
  const loadOnce = async function* (signal) {
    const found = await readModel(signal);
    if (found.version.signature) yield found;
  };
  return {
    title: query.version ? `Model ${name}:${query.version}` : `Model ${name}`,
    parts: [
      { title: "Version", scopes: ["models:read"], watch: poll(10, readModel), show: showModel },
      { title: "Score a row", scopes: ["models:read", "jobs:write"], watch: loadOnce, show: showForms },
    ],
  };
}

function readAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [room, name = ""] = path.split("/");
  return { room, name, query: Object.fromEntries(new URLSearchParams(query)) };
}

function showPage() {
  const { room, name, query } = readAddress();
  const make = Object.hasOwn(PAGES, room) ? PAGES[room] : () => ({ title: "There is no such page", parts: [] });
  page.abort();
  page = new AbortController();
  faults.clear();
  showFaults();
  const { title, parts, before } = make(name, query);
  document.title = room ? `${title} · scorequeue` : "scorequeue";
  const heading = h("h1", { tabindex: "-1", class: room ? null : "unseen" }, title);
  find("content").replaceChildren(heading, ...(before ? [before] : []), ...parts.map(makePart));
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === `#/${room}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return heading;
}

async function showState() {
  for (;;) {
    const { signal } = page;
    try {
      const { status, missing } = await read("ready", { allow: [503], signal });
      const says = status === "ready" ? badge("good", "ready") : badge("bad", `missing: ${words(missing.join(", "))}`);
      morph(find("state"), h("p", null, says));
    } catch (error) {
      if (error instanceof Problem) morph(find("state"), h("p", null, badge("bad", "no answer")));
      else if (!signal.aborted) throw error;
    }
    await rest(10, signal);
  }
}

const ACTIONS = {
  pause: async ({ model }) => {
    await change(`v1/queues/${encode(model)}/pause`);
    say(`${model} is paused. Its jobs are taken, and wait.`);
  },
  resume: async ({ model }) => {
    await change(`v1/queues/${encode(model)}/resume`);
    say(`${model} goes on.`);
  },
  cancel: async ({ job }) => {
    const { status } = await readChange(`v1/jobs/${job}/cancel`);
    say(status === "canceled" ? "The job is canceled." : "The job is canceled when its running chunks have stopped.");
  },
  retry: async ({ job }) => {
    const made = await readChange(`v1/jobs/${job}/retry`);
    say("It is queued again as ", linkJob(made.id), ".");
  },
  remove: async ({ job, verb }) => {
    if (!confirm(`${verb} ${job}, with its input and result?`)) return;
    await change(`v1/jobs/${job}`, { method: "DELETE" });
    say("The job is gone.");
    if (readAddress().name === job) location.hash = "#/jobs";
  },
  download: async ({ path, accept, name }) => {
    say(`Loading ${name} …`);
    const file = await loadFile(path, { Accept: accept });
    const address = URL.createObjectURL(file);
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    say(`${name}, ${size(file.size)}, is loaded.`);
  },
  fill: fillForm,
  hush: () => find("said").replaceChildren(),
  skip: () => find("content").focus(),
  key: () => askForKey(null),
  close: () => find("key").close(),
  forget: () => useKey(""),
};
const FORMS = {
  row: scoreRow,
  file: (form) => scoreFile(form, say),
  filters: (form) => {
    const chosen = [...new FormData(form)].filter(([, value]) => value !== "");
    location.hash = `#/jobs?${new URLSearchParams(chosen)}`;
  },
};

/** Do something once at a time, and say what is wrong if it cannot be done. */
async function act(element, work) {
  element.disabled = true;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) askForKey(error);
    else say(error);
  } finally {
    element.disabled = false;
    refresh();
  }
}

async function useKey(text) {
  if (text && !/^[!-~]+$/.test(text)) {
    find("key-reason").textContent = "A key has no spaces and no letters beyond ASCII.";
    return;
  }
  keepKey(text);
  find("key-text").value = "";
  find("key").close();
  await start();
}

async function start() {
  page.abort();
  page = new AbortController();
  const { signal } = page;
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      Object.assign(caller, await read("v1/caller", { signal }));
      break;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      Object.assign(caller, NOBODY);
      find("tenant").textContent = "Key";
      find("content").replaceChildren(showProblem(error));
      if (error.status === 401) return askForKey(error);
      if (!error.passes) return;
      await rest(error.retryAfter ?? Math.min(2 ** failures, 30), signal);
    }
  }
  find("tenant").textContent = caller.key_id ? `Key of ${caller.tenant}` : "No key needed";
  if (!signal.aborted) showPage();
}

document.addEventListener("click", (event) => {
  const element = event.target.closest("[data-action]");
  if (!element) return;
  event.preventDefault();
  act(element, async () => ACTIONS[element.dataset.action](element.dataset));
});
document.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (form.dataset.form) act(event.submitter ?? form, async () => FORMS[form.dataset.form](form));
  else useKey(find("key-text").value.trim());
});
document.addEventListener("change", (event) => {
  const form = event.target.closest("[data-form=filters]");
  if (form) FORMS.filters(form);
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("hashchange", () => {
  if (!caller.tenant) return;
  const { name } = document.activeElement;
  const heading = showPage();
  // Who chose a filter by keyboard goes on there; on another page a reader begins at its heading.
  const filter = name && document.querySelector(`[data-form=filters] [name=${name}]`);
  (filter || heading).focus();
});
start();
showState();
