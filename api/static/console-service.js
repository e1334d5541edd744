// Asking the service: its own API and nothing else, with the key that the user typed in.

const KEY = "scorequeue-key"; // in sessionStorage: gone with the tab
/** Media types of files by the endings of their names. */
export const FORMATS = {
  csv: "text/csv",
  parquet: "application/vnd.apache.parquet",
  ndjson: "application/x-ndjson",
};
const wakes = new EventTarget();

/** Who the user is, as the service told. */
export const caller = { tenant: "", key_id: null, scopes: [] };
export const may = (scope) => caller.scopes.includes(scope);
export const encode = encodeURIComponent;

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export function keepKey(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

/** End all waiting: something was done, so the answers may be new. */
export const refresh = () => wakes.dispatchEvent(new Event("wake"));

export class Problem extends Error {
  constructor(document, response) {
    super(document.detail ?? "");
    this.title = document.title ?? "The answer was not understood";
    this.status = response?.status ?? 0;
    this.errors = document.errors ?? [];
    this.retryAfter = Number(response?.headers.get("Retry-After")) || null;
    this.request = response?.headers.get("X-Request-Id");
  }

  /** Whether the same request may well be answered later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Await what the network does; a failure of it is a problem like those that the service tells. */
export async function reach(work, signal) {
  try {
    return await work;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem({ title: "The service does not answer", detail: "The connection failed, or took too long." });
  }
}

/** Make a request with the user's key; `seconds` bounds it, 0 does not. */
export async function ask(path, { headers, allow = [], seconds = 30, signal, ...options } = {}) {
  const sent = new Headers(headers);
  const key = sessionStorage.getItem(KEY);
  if (key) sent.set("Authorization", `Bearer ${key}`);
  const bounds = seconds ? [signal, AbortSignal.timeout(seconds * 1000)] : [signal];
  const sending = fetch(path, { ...options, headers: sent, signal: AbortSignal.any(bounds) });
  const response = await reach(sending, signal);
  if (response.ok || allow.includes(response.status)) return response;
  const unknown = { title: `The service answered ${response.status}` };
  throw new Problem(await response.json().catch(() => unknown), response);
}

export const read = async (path, { signal, ...options }) =>
  reach((await ask(path, { signal, ...options })).json(), signal);
const NEVER = new AbortController().signal;

/** A change goes on when another page is shown. */
export const change = (path, options) => ask(path, { method: "POST", signal: NEVER, ...options });
export const readChange = async (path, options) => reach((await change(path, options)).json(), NEVER);
export const loadFile = async (path, headers) =>
  reach((await ask(path, { headers, seconds: 0, signal: NEVER })).blob(), NEVER);

export async function* readLines(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let begun = ""; ; ) {
    const { done, value } = await reach(reader.read(), signal);
    if (done) return;
    const lines = (begun + value).split("\n");
    begun = lines.pop();
    yield* lines;
  }
}

/** The states of a job as its events tell them, until it has ended or the stream has. */
export async function* followJob(id, signal) {
  const response = await ask(`v1/jobs/${id}/events`, { seconds: 0, signal });
  for await (const line of readLines(response, signal)) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
}

/** Wait; a hidden page waits until it is seen, and any action ends the wait. */
export function rest(seconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = document.hidden ? null : setTimeout(end, seconds * 1000);
    function end() {
      clearTimeout(timer);
      wakes.removeEventListener("wake", end);
      signal.removeEventListener("abort", end);
      resolve();
    }
    wakes.addEventListener("wake", end);
    signal.addEventListener("abort", end);
  });
}

/** Ask again and again; ever more seldom while the answer stays the same. */
export const poll = (seconds, load) =>
  async function* (signal) {
    let before = null;
    for (let pause = seconds; !signal.aborted; ) {
      const data = await load(signal);
      const text = JSON.stringify(data);
      pause = text === before ? Math.min(pause * 1.5, seconds * 5) : seconds;
      before = text;
      yield data;
      await rest(pause, signal);
    }
  };
