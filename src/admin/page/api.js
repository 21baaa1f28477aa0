// Asks the daemon, and nobody else. What goes wrong is thrown as one `Trouble`, whatever it is.

const KEY = "rmxd.token";
const PATIENCE = 10_000;
// A check or an audit waits for DNS.
export const LONG = 60_000;

export class Trouble extends Error {
  // `status` 0: there was no answer.
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  get wantsToken() {
    return this.status === 401;
  }

  get isGone() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

export const token = {
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
  isSet: () => sessionStorage.getItem(KEY) !== null,
};

// What GET gives: `parameters` without those that are empty; of a list, each.
export function get(path, parameters = {}, patience = PATIENCE) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== "" && one !== null && one !== undefined) query.append(name, one);
    }
  }
  const text = query.toString();
  return ask("GET", text ? `${path}?${text}` : path, patience);
}

export const remove = (path) => ask("DELETE", path, PATIENCE);

async function ask(method, path, patience) {
  const headers = { Accept: "application/json" };
  const secret = sessionStorage.getItem(KEY);
  if (secret) headers.Authorization = `Bearer ${secret}`;
  let answer;
  let value = null;
  try {
    answer = await fetch(`/api/v1/${path}`, { method, headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(patience) });
    value = await answer.json().catch(() => null);
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Trouble(0, late ? `no answer within ${patience / 1000} s` : "the daemon doesn't answer");
  }
  if (!answer.ok) throw new Trouble(answer.status, value?.detail || value?.title || `${answer.status} ${answer.statusText}`);
  if (value === null) throw new Trouble(answer.status, "the answer is no JSON");
  return value;
}
