// What waits, who works, and what is registered.

import { badge, button, count, facts, h, linkModel, plural, showValue, span, table, time } from "./console-elements.js";
import { may, read } from "./console-service.js";

const QUEUE_COLUMNS = [
  ["Model"], ["Waits"], ["Rows", "number"], ["Oldest", "number"], ["Rows/s", "number wide"], ["Warm", "number wide"],
  ["State"], ["", "actions"],
];

const COLUMN_COLUMNS = [["Column"], ["Type"], ["Seen in training"], ["May be missing"]];

export const readService = async (signal) => ({
  ready: await read("ready", { allow: [503], signal }),
  queues: (await read("v1/queues", { signal })).queues,
});

const showFigure = ([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value));

export function showNow({ ready, queues }) {
  const sum = (name) => queues.reduce((total, queue) => total + queue[name], 0);
  const oldest = Math.max(0, ...queues.map((queue) => queue.oldest_age_seconds));
  const figures = [
    ["rows wait", count(sum("rows"))],
    ["rows are being scored", count(Math.max(0, sum("outstanding_rows") - sum("rows")))],
    ["oldest waits for", oldest ? span(oldest) : "—"],
    ["workers for rows", count(ready.workers.rows ?? 0)],
    ["workers for files", count(ready.workers.files ?? 0)],
  ];
  const versions = new Map();
  for (const queue of queues) versions.set(queue.model, [...(versions.get(queue.model) ?? []), queue]);
  const busy = ([, found]) => Math.max(...found.map((queue) => queue.outstanding_rows + (queue.paused ? 0.5 : 0)));
  const sorted = [...versions].sort((one, two) => busy(two) - busy(one) || one[0].localeCompare(two[0]));
  return [
    h("dl", { class: "figures" }, figures.map(showFigure)),
    sorted.length === 0
      ? h("p", { class: "soft" }, "No job was ever submitted. A model's page has a form to score a row.")
      : table("Queues", QUEUE_COLUMNS, sorted.map(showQueue)),
  ];
}

function showQueue([model, queues]) {
  const depth = (kind) => queues.filter((queue) => queue.kind === kind).reduce((sum, queue) => sum + queue.depth, 0);
  const most = (name) => Math.max(...queues.map((queue) => queue[name] ?? 0));
  const paused = queues.some((queue) => queue.paused);
  const rows = queues.reduce((sum, queue) => sum + queue.rows, 0);
  const waits = [[depth("rows"), "job"], [depth("files"), "chunk"]].filter(([number]) => number > 0);
  const label = paused ? "Resume" : "Pause";
  return [
    model,
    linkModel(model),
    waits.map(([number, unit]) => plural(number, unit)).join(", ") || "nothing",
    count(rows),
    most("oldest_age_seconds") ? span(most("oldest_age_seconds")) : "—",
    most("rows_per_second") ? count(Math.round(most("rows_per_second"))) : "—",
    `${Math.max(...queues.map((queue) => queue.warm_workers))} of ${most("workers")}`,
    showQueueState(paused, most("workers"), most("outstanding_rows")),
    may("models:write") && button(paused ? "resume" : "pause", label, { model }, { "aria-label": `${label} ${model}` }),
  ];
}

function showQueueState(paused, workers, rows) {
  if (paused) return badge("warn", "paused");
  if (rows === 0) return badge("quiet", "idle");
  return workers === 0 ? badge("bad", "no worker") : badge("now", "scoring");
}

const listTargets = (model, version) =>
  Object.entries(model.aliases).flatMap(([alias, target]) => {
    if (typeof target === "number") return target === version ? [alias] : [];
    const weight = target.versions[version];
    const shadow = target.shadow === version && `${alias} shadow`;
    return [weight && `${alias} ${Math.round(weight * 100)} %`, shadow].filter(Boolean);
  });

function showReady(version) {
  if (!version.ready) return [badge("bad", "not ready"), h("div", { class: "fault" }, version.not_ready_reason)];
  if (version.warm_processes === 0) return badge("quiet", "not loaded yet");
  return badge("good", `warm in ${plural(version.warm_processes, "process", "processes")}`);
}

const showTargets = (model, version) =>
  listTargets(model, version).map((alias) => [h("span", { class: "chip" }, alias), " "]);

function showColumn(column) {
  return [column.name, column.name, column.type, showRange(column), column.nullable ? "yes" : "no"];
}

/** What a column held in the training data. */
export function showRange(column) {
  const more = column.categories.length > 8 ? ", …" : "";
  if (column.categories.length) return column.categories.slice(0, 8).map(String).join(", ") + more;
  return column.min == null ? "" : `${showValue(column.min)} to ${showValue(column.max)}`;
}

export function showModels(models) {
  const command = h("code", null, "scorequeue models register");
  if (models.length === 0) return h("p", { class: "soft" }, "None is registered. ", command, " does it.");
  const rows = models.flatMap((model) => [...model.versions].reverse().map((version) => [
    `${model.name}:${version.version}`,
    linkModel(`${model.name}:${version.version}`),
    showTargets(model, version.version),
    version.signature?.task ?? "—",
    version.signature ? count(version.signature.columns.length) : "—",
    showReady(version),
  ]));
  return table("Models", [["Version"], ["Aliases"], ["Task", "wide"], ["Columns", "number wide"], ["State"]], rows);
}

export function showModel({ model, version }) {
  const { signature, metrics } = version;
  const others = model.versions.filter((other) => other.version !== version.version);
  return [
    facts([
      ["State", showReady(version)],
      ["Aliases", showTargets(model, version.version)],
      ["Registered", time(version.created_at)],
      ["Format", version.format && `${version.format}, run by ${version.backend?.name ?? "scikit-learn"}`],
      ["SHA-256", version.sha256 && h("code", null, version.sha256)],
      ["Training", metrics && Object.entries(metrics).map(([name, value]) => `${name} ${showValue(value)}`).join(", ")],
      ["Classes", signature?.classes?.map(String).join(", ")],
      ["Other versions", others.map((other) => [linkModel(`${model.name}:${other.version}`), " "])],
    ]),
    signature && h("details", null,
      h("summary", null, plural(signature.columns.length, "column")),
      table("Columns", COLUMN_COLUMNS, signature.columns.map(showColumn))),
  ];
}
