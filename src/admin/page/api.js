// Requests to the API. Every failure is thrown as an `ApiError`.

const KEY = "rmxd.token";
const TIMEOUT = 10_000;
// A check or an audit waits for DNS servers.
export const LONG_TIMEOUT = 60_000;

export class ApiError extends Error {
  // `status` is 0 without a response.
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  get needsToken() {
    return this.status === 401;
  }

  get isUnreachable() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

// The token for reading, which the browser keeps until the tab is closed.
export const token = {
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
  isSet: () => sessionStorage.getItem(KEY) !== null,
  // Whether writing needs no question.
  isKnown: () => entered !== null || sessionStorage.getItem(KEY) !== null,
  forget: () => { entered = null; },
};

// A token that was entered for writing; it ends with the page.
let entered = null;

// GET. Empty parameters are left out; a list becomes a repeated parameter.
export function get(path, parameters = {}, timeout = TIMEOUT) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== "" && one !== null && one !== undefined) query.append(name, one);
    }
  }
  const text = query.toString();
  return request("GET", text ? `${path}?${text}` : path, timeout);
}

export const remove = (path) => request("DELETE", path, TIMEOUT);

// Changes something, with this token, or with the one that is known. A token is kept once it was right.
export async function write(method, path, body, secret) {
  const used = secret || (entered ?? sessionStorage.getItem(KEY));
  const answer = await request(method, path, TIMEOUT, { body, secret: used });
  if (secret) entered = secret;
  return answer;
}

async function request(method, path, timeout, { body = null, secret = sessionStorage.getItem(KEY) } = {}) {
  const headers = { Accept: "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  let value = null;
  try {
    answer = await fetch(`/api/v1/${path}`, { method, headers, cache: "no-store", credentials: "omit", body: body && JSON.stringify(body), signal: AbortSignal.timeout(timeout) });
    value = await answer.json().catch(() => null);
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, late ? `no answer within ${timeout / 1000} s` : "the daemon does not answer");
  }
  if (!answer.ok) throw new ApiError(answer.status, value?.detail || value?.title || `${answer.status} ${answer.statusText}`);
  if (answer.status === 204) return null;
  if (value === null) throw new ApiError(answer.status, "the response is not JSON");
  return value;
}
