// Forms to score a row or a file with a model version, made from its signature.

import { button, find, h, isFlat, linkJob, showProblem, showValue, size, span, words } from "./console-elements.js";
import { showRange } from "./console-models.js";
import { FORMATS, Problem, encode, readChange } from "./console-service.js";

const MOST_FIELDS = 100;
const MOST_LISTED = 200;
const FILES = ".csv,.tsv,.parquet,.ndjson,.jsonl,.gz,.zst";
const ENDINGS = { csv: "csv", tsv: "csv", parquet: "parquet", ndjson: "ndjson", jsonl: "ndjson" };
const PACKED = { gz: "gzip", zst: "zstd" };

let scored = null; // the version whose form is shown

const isChosen = (column) => column.type === "boolean" || column.type === "category";

function showField(column, index) {
  const id = `field-${index}`;
  const isText = column.type === "string";
  const common = { id, name: id, "aria-describedby": `hint-${index} fault-${index}` };
  const choices = column.type === "boolean" ? [true, false] : column.categories;
  const hints = [choices.length ? "" : showRange(column) || column.type, column.nullable && "may be empty"];
  const list = `list-${index}`;
  return h("div", null,
    h("label", { for: id }, column.name),
    isChosen(column)
      ? h("select", common, h("option", { value: "" }, column.nullable ? "missing" : "choose"),
          choices.map((choice, place) => h("option", { value: place }, String(choice))))
      : h("input", { ...common, inputmode: isText ? "text" : "decimal", autocomplete: "off", list: isText && list }),
    isText && h("datalist", { id: list }, choices.slice(0, MOST_LISTED).map((label) => h("option", { value: label }))),
    h("p", { class: "hint", id: `hint-${index}` }, hints.filter(Boolean).join(", ")),
    h("p", { class: "fault", id: `fault-${index}` }));
}

export function showForms({ version }) {
  scored = version;
  const { columns } = version.signature;
  const reference = `${version.name}:${version.version}`;
  const fields = columns.length <= MOST_FIELDS
    ? h("div", { class: "fields" }, columns.map(showField))
    : h("label", null, "The row, as a JSON list or object", h("textarea", { name: "row", spellcheck: "false" }));
  return [
    h("form", { "data-form": "row", "data-model": reference }, fields,
      h("div", { class: "actions" }, h("button", { class: "main" }, "Score the row"),
        columns.length <= MOST_FIELDS && button("fill", "Fill with values from training", {}))),
    h("div", { id: "answer", role: "status" }),
    h("h3", null, "Or a file"),
    h("form", { "data-form": "file", "data-model": reference },
      h("label", { for: "file" }, "CSV, Parquet or NDJSON with the columns of the model; .gz and .zst too"),
      h("input", { id: "file", name: "file", type: "file", required: true, accept: FILES }),
      h("div", { class: "actions" }, h("button", null, "Score the file"))),
  ];
}

function readField(column, index) {
  const { value } = find(`field-${index}`);
  if (value.trim() === "") return null;
  if (column.type === "boolean") return value === "0";
  if (column.type === "category") return column.categories[Number(value)];
  // What is no number goes as it is: the service says what it expected, and the field shows it.
  return column.type !== "string" && Number.isFinite(Number(value)) ? Number(value) : value;
}

function fillField(column, index) {
  const middle = column.min == null ? 0 : (column.min + column.max) / 2;
  const number = column.type === "long" ? Math.round(middle) : showValue(middle);
  const text = column.type === "string" ? "" : number;
  find(`field-${index}`).value = isChosen(column) ? "0" : (column.categories[0] ?? text);
}

/** Fill the form with values from the middle of what the model was trained on. */
export const fillForm = () => scored.signature.columns.forEach(fillField);

/** Score the row in the form, and show the answer or what is wrong with it beside the fields. */
export async function scoreRow(form) {
  const { columns } = scored.signature;
  columns.forEach((_, index) => markField(index, ""));
  find("answer").replaceChildren();
  try {
    const row = form.elements.row ? JSON.parse(form.elements.row.value) : columns.map(readField);
    const body = JSON.stringify({ model: form.dataset.model, rows: [row] });
    const headers = { "Content-Type": "application/json", Prefer: "wait=10" };
    const job = await readChange("v1/jobs", { body, headers });
    find("answer").replaceChildren(h("div", null, showAnswer(job)));
  } catch (error) {
    const isJson = !(error instanceof SyntaxError);
    const problem = isJson ? error : new Problem({ title: "The row is not JSON", detail: error.message });
    if (!(problem instanceof Problem) || problem.status === 401) throw problem;
    find("answer").replaceChildren(showProblem(problem));
    const names = columns.map((column) => column.name);
    for (const fault of problem.errors) markField(names.indexOf(fault.column), fault.detail);
    form.querySelector("[aria-invalid=true]")?.focus();
  }
}

function markField(index, says) {
  const field = find(`field-${index}`);
  if (!field) return;
  field.setAttribute("aria-invalid", String(says !== ""));
  find(`fault-${index}`).textContent = says;
}

function showAnswer(job) {
  const { result } = job;
  if (!result && job.error) return showProblem(new Problem(job.error));
  if (!result) return h("p", null, "The job waits: ", linkJob(job.id), ".");
  const [failure] = result.errors;
  if (failure) return h("p", { class: "fault" }, `${words(failure.code)}: ${failure.detail}`);
  const shares = result.probabilities?.[0];
  const [waited, took] = [span(result.queue_seconds), span(result.predict_seconds)];
  return [
    h("p", { class: "answer", id: "prediction" }, showValue(result.predictions[0])),
    isFlat(shares) && h("div", { class: "classes" }, shares.map((share, index) => [
      h("span", null, String(result.classes[index])),
      h("meter", { min: "0", max: "1", value: String(share), "aria-label": `probability of ${result.classes[index]}` }),
      h("span", { class: "number" }, `${(share * 100).toFixed(1)} %`),
    ])),
    h("p", { class: "soft" }, `${result.model} took ${took}, after ${waited} of waiting: `, linkJob(job.id)),
  ];
}

/** Submit a file and show its job. */
export async function scoreFile(form, say) {
  const [file] = form.elements.file.files;
  const endings = file.name.toLowerCase().split(".").slice(1);
  const packed = PACKED[endings.at(-1)];
  const ending = packed ? endings.at(-2) : endings.at(-1);
  const headers = { "Content-Type": FORMATS[ENDINGS[ending] ?? "csv"] };
  if (packed) headers["Content-Encoding"] = packed;
  say(`Sending ${file.name}, ${size(file.size)} …`);
  const query = `model=${encode(form.dataset.model)}${ending === "tsv" ? "&delimiter=tab" : ""}`;
  const job = await readChange(`v1/jobs?${query}`, { body: file, headers, seconds: 0 });
  say(`${file.name} is taken.`);
  location.hash = `#/jobs/${job.id}`;
}
