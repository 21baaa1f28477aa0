// "Check a sender": a decision made now, shown like one of the history.

import { LONG_TIMEOUT, get, remove } from "./api.js";
import { byId, showProblem, el, fill, setText } from "./dom.js";
import { view } from "./record.js";
import { plural } from "./words.js";

const FIELDS = ["client", "helo", "mail_from", "from", "reply_to"];

export function start() {
  byId("check-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

// Fills the form from the URL.
export function prefill(parameters) {
  const form = byId("check-form");
  if (![...parameters].length) return;
  for (const name of FIELDS) form[name].value = parameters.get(name) ?? "";
  submit();
}

async function submit() {
  const form = byId("check-form");
  const question = Object.fromEntries(FIELDS.map((name) => [name, form[name].value.trim()]));
  const answer = await run(form, "querying DNS …", () => get("check", question, LONG_TIMEOUT));
  if (!answer) return;
  const record = { ...Object.fromEntries(FIELDS.map((name) => [name, question[name]])), ...answer };
  fill(byId("check-result"), el("section.panel", { "aria-label": "Result" }, ...view(record), cacheButton(answer)));
  byId("check-result").focus();
}

// The number of requests of each form.
const turns = new WeakMap();

// Runs a request for a form and shows its state and its error. Returns null after an error, or if the form has sent another
// request meanwhile.
export async function run(form, words, question) {
  const button = form.querySelector("button[type=submit]");
  const [state, problem] = [form.querySelector("[role=status]"), form.querySelector(".problem")];
  const turn = (turns.get(form) ?? 0) + 1;
  const isLatest = () => turns.get(form) === turn;
  turns.set(form, turn);
  showProblem(problem, null);
  button.disabled = true;
  setText(state, words);
  try {
    const answer = await question();
    return isLatest() ? answer : null;
  } catch (error) {
    if (isLatest()) showProblem(problem, error.message);
    return null;
  } finally {
    if (isLatest()) {
      button.disabled = false;
      setText(state, "");
    }
  }
}

// For a DNS record that has just been corrected, while the cache still has the old answer.
function cacheButton(answer) {
  const domains = [...new Set((answer.findings ?? []).map((finding) => finding.domain).filter(Boolean))];
  if (!(answer.findings ?? []).some((finding) => finding.evidence.some((evidence) => evidence.freshness !== "fresh"))) return null;
  const state = el("span.soft", { role: "status" });
  const press = async (event) => {
    event.currentTarget.disabled = true;
    try {
      const counts = await Promise.all(domains.map((domain) => remove(`cache/${encodeURIComponent(domain)}`)));
      setText(state, `${plural(counts.reduce((sum, one) => sum + one.removed, 0), "answer")} removed; check again`);
    } catch (error) {
      setText(state, error.message);
    }
  };
  return el("p.actions", {}, el("button", { type: "button", click: press }, "Remove these domains from the cache"), state);
}
