// Jobs: lists of them, dead letters, and one with its progress, answers and failed rows.

import {
  LOOKS, button, count, facts, h, isFlat, linkJob, linkModel, plural, shorten, showProblem, showStatus, showValue,
  span, table, time, words,
} from "./console-elements.js";
import { FORMATS, Problem, ask, followJob, may, read, readLines, rest } from "./console-service.js";

const TERMINAL = ["succeeded", "partially_succeeded", "failed", "canceled", "expired"];
const SHOWN_ROWS = 20;
const STATUSES = ["queued", "running", ...TERMINAL];
const NAMES = { csv: "CSV", parquet: "Parquet", ndjson: "NDJSON" };
const JOB_COLUMNS = [
  ["Job"], ["Status"], ["Rows"], ["Model"], ["Kind", "wide"], ["Submitted"], ["Took", "number wide"],
];

function showProgress(job, look = "progress") {
  const { total, succeeded, failed } = job.row_counts;
  const done = succeeded + failed;
  return h("span", { class: look },
    h("progress", { class: LOOKS[job.status], max: "1", value: String(job.progress), "aria-label": `progress of ${job.id}` }),
    h("span", null,
      done === total ? plural(total, "row") : `${count(done)} of ${plural(total, "row")}`,
      failed > 0 && h("span", { class: "fault" }, ` ${count(failed)} failed`)));
}

/** A list of jobs; of a page of them with the way to the others, which fit the same filters. */
export function showJobs({ jobs, next }, { after, ...wanted } = {}) {
  if (jobs.length === 0) return h("p", { class: "soft" }, "There is none.");
  const rows = jobs.map((job) => [
    job.id, linkJob(job.id), showStatus(job), showProgress(job), linkModel(job.model), job.kind, time(job.created_at),
    duration(job) ?? "—",
  ]);
  const address = (more) => `#/jobs?${new URLSearchParams({ ...wanted, ...more })}`;
  return [
    table("Jobs", JOB_COLUMNS, rows),
    h("div", { class: "actions" },
      after && h("a", { href: address({}) }, "Newest"), next && h("a", { href: address({ after: next }) }, "Older")),
  ];
}

export function showFilters(query) {
  const choose = (name, label, choices) => {
    const isChosen = (choice) => query[name] === choice;
    const options = choices.map((choice) => h("option", { value: choice, selected: isChosen(choice) }, words(choice)));
    return h("label", null, label, h("select", { name }, h("option", { value: "" }, "all"), options));
  };
  return h("form", { class: "filters", "data-form": "filters" },
    choose("status", "Status", STATUSES), choose("kind", "Kind", ["rows", "file"]),
    h("label", null, "Model",
      h("input", { name: "model", value: query.model ?? "", autocomplete: "off", spellcheck: "false" })));
}

export function showLetters(letters) {
  if (letters.length === 0) return [];
  const rows = letters.map((job) => [
    job.id, linkJob(job.id), linkModel(job.model), job.error ? `${job.error.title}. ${job.error.detail}` : "—",
    time(job.finished_at),
    may("jobs:write") && [
      button("retry", "Requeue", { job: job.id }, { "aria-label": `Requeue ${shorten(job.id)}` }),
      button("remove", "Drop", { job: job.id, verb: "Drop" }, { "aria-label": `Drop ${shorten(job.id)}` }),
    ],
  ]);
  return table("Dead letters", [["Job"], ["Model"], ["Reason"], ["Given up", "wide"], ["", "actions"]], rows);
}

/** A job until it has ended, as its events tell; then with what it left. */
export const watchJob = (id) =>
  async function* (signal) {
    while (!signal.aborted) {
      const job = await read(`v1/jobs/${id}`, { signal });
      if (TERMINAL.includes(job.status)) return yield { job, ...(await readEnd(job, signal)) };
      yield { job };
      let pause = 1; // a stream ends after a minute, and another is opened
      try {
        for await (const later of followJob(id, signal)) {
          yield { job: later };
          if (TERMINAL.includes(later.status)) pause = 0;
        }
      } catch (error) {
        if (!(error instanceof Problem) || !error.passes) throw error;
        pause = error.retryAfter ?? 2; // too many streams, for instance: until there is room it is polled
      }
      if (pause) await rest(pause, signal);
    }
  };

/** What an ended job left: the first of its answers, and of the rows that failed. */
async function readEnd(job, signal) {
  const isScored = job.status === "succeeded" || job.status === "partially_succeeded";
  const failures = [];
  if (job.row_counts.failed > 0 && job.status !== "canceled") {
    const stop = new AbortController();
    const response = await ask(`v1/jobs/${job.id}/errors`, { signal: AbortSignal.any([signal, stop.signal]) });
    for await (const line of readLines(response, signal)) {
      failures.push(JSON.parse(line));
      if (failures.length === SHOWN_ROWS) break;
    }
    stop.abort();
  }
  const result = isScored && job.kind === "rows" ? await read(`v1/jobs/${job.id}/result`, { signal }) : null;
  return { failures, result };
}

export function showJob({ job, result, failures = [] }) {
  const place = job.queue_position && `place ${count(job.queue_position)} in the queue`;
  const notes = [place, job.eta_seconds && `about ${span(job.eta_seconds)} left`].filter(Boolean);
  const { succeeded, failed, pending } = job.row_counts;
  return [
    h("p", { id: "status" }, showStatus(job), notes.map((note) => ` · ${note}`)),
    showProgress(job, "wholeline"),
    job.error && showProblem(new Problem(job.error)),
    facts([
      ["Model", linkModel(job.model)],
      ["Kind", `${job.kind}, ${job.priority} priority`],
      ["Rows", `${count(succeeded)} succeeded, ${count(failed)} failed, ${count(pending)} pending`],
      ["Speed", job.rows_per_second ? `${count(Math.round(job.rows_per_second))} rows/s` : null],
      ["Submitted", time(job.created_at)],
      ["Took", duration(job)],
      ["Removed", time(job.gone_at)],
      ["Attempts", job.attempts > 1 ? String(job.attempts) : null],
      ["Retry of", job.retry_of ? linkJob(job.retry_of) : null],
      ["Request", job.request_id ? h("code", null, job.request_id) : null],
      ["Metadata", job.metadata ? h("code", null, JSON.stringify(job.metadata)) : null],
    ]),
    h("div", { class: "actions" }, listDownloads(job), may("jobs:write") && listChanges(job)),
    result && showPredictions(result),
    failures.length > 0 && showFailures(failures, failed),
  ];
}

function listChanges(job) {
  const [ended, failed] = [TERMINAL.includes(job.status), job.row_counts.succeeded < job.row_counts.total];
  const isDeadLetter = job.kind === "rows" && job.error?.code === "worker_lost";
  return [
    !ended && button("cancel", "Cancel", { job: job.id }),
    ended && failed && job.kind === "file" && button("retry", "Score the failed rows again", { job: job.id }),
    isDeadLetter && button("retry", "Requeue", { job: job.id }),
    ended && button("remove", "Delete", { job: job.id, verb: "Delete" }, { class: "bad" }),
  ];
}

function showFailures(failures, total) {
  const number = (value) => (value == null ? "—" : count(value));
  const rows = failures.map((failure, index) => [
    String(index), number(failure.row), number(failure.line), failure.column ?? "—",
    `${words(failure.code ?? "")}: ${failure.detail}`,
  ]);
  const [all, title] = [failures.length === total, `The first ${failures.length} of ${count(total)} failed rows`];
  return [
    h("h3", null, all ? "Failed rows" : title),
    table("Failed rows", [["Row", "number"], ["Line", "number"], ["Column"], ["What is wrong"]], rows),
  ];
}

function listDownloads(job) {
  const isScored = job.status === "succeeded" || job.status === "partially_succeeded";
  const load = (label, path, accept, name) =>
    button("download", label, { path: `v1/jobs/${job.id}/${path}`, accept, name });
  const loadAs = ([ending, type]) => load(`Result, ${NAMES[ending]}`, "result", type, `${job.id}.${ending}`);
  return [
    isScored && job.kind === "rows" && load("Result, JSON", "result", "application/json", `${job.id}.json`),
    isScored && job.kind === "file" && Object.entries(FORMATS).map(loadAs),
    job.row_counts.failed > 0 && load("Failed rows, NDJSON", "errors", FORMATS.ndjson, `${job.id}-errors.ndjson`),
  ];
}

function showPredictions(result) {
  const shown = result.predictions.slice(0, SHOWN_ROWS);
  const best = (index) => {
    const shares = result.probabilities?.[index];
    return isFlat(shares) ? `${(Math.max(...shares) * 100).toFixed(1)} %` : "—";
  };
  const columns = [["Row"], ["Prediction"], ...(result.probabilities ? [["Probability", "number"]] : [])];
  const cells = (value, index) => [count(index), showValue(value), best(index)].slice(0, columns.length);
  const rows = shown.map((value, index) => [String(index), ...cells(value, index)]);
  const [total, batch] = [result.predictions.length, plural(result.micro_batch_rows, "row")];
  const [waited, took] = [span(result.queue_seconds), span(result.predict_seconds)];
  return [
    h("h3", null, shown.length < total ? `The first ${shown.length} of ${plural(total, "prediction")}` : "Predictions"),
    table("Predictions", columns, rows),
    h("p", { class: "soft" }, `Scored in a call of ${batch}, after ${waited} of waiting, in ${took}.`),
  ];
}

function duration(job) {
  return job.started_at ? span((new Date(job.finished_at ?? Date.now()) - new Date(job.started_at)) / 1000) : null;
}
