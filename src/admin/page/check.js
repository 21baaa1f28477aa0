// "Check a sender": one decision made now, shown as those of the history are.

import { LONG, get, remove } from "./api.js";
import { byId, complain, el, fill, say } from "./dom.js";
import { view } from "./record.js";
import { plural } from "./words.js";

const FIELDS = ["client", "helo", "mail_from", "from", "reply_to"];

export function start() {
  byId("check-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
}

// What stands in the address goes into the form.
export function prefill(parameters) {
  const form = byId("check-form");
  if (![...parameters].length) return;
  for (const name of FIELDS) form[name].value = parameters.get(name) ?? "";
  ask();
}

async function ask() {
  const form = byId("check-form");
  const question = Object.fromEntries(FIELDS.map((name) => [name, form[name].value.trim()]));
  const answer = await run(form, "asking DNS …", () => get("check", question, LONG));
  if (!answer) return;
  const record = { ...Object.fromEntries(FIELDS.map((name) => [name, question[name]])), ...answer };
  fill(byId("check-result"), el("section.panel", { "aria-label": "Result" }, ...view(record), forget(answer)));
  byId("check-result").focus();
}

// How often each form asked.
const turns = new WeakMap();

// Asks while the form says so, and shows what goes wrong; nothing then. An answer that comes after the form asked again is
// nothing, too.
export async function run(form, words, question) {
  const button = form.querySelector("button[type=submit]");
  const [state, problem] = [form.querySelector("[role=status]"), form.querySelector(".problem")];
  const turn = (turns.get(form) ?? 0) + 1;
  const isLatest = () => turns.get(form) === turn;
  turns.set(form, turn);
  complain(problem, null);
  button.disabled = true;
  say(state, words);
  try {
    const answer = await question();
    return isLatest() ? answer : null;
  } catch (error) {
    if (isLatest()) complain(problem, error.message);
    return null;
  } finally {
    if (isLatest()) {
      button.disabled = false;
      say(state, "");
    }
  }
}

// Its sender has just mended DNS: what the cache still knows is in the way.
function forget(answer) {
  const domains = [...new Set((answer.findings ?? []).map((finding) => finding.domain).filter(Boolean))];
  if (!(answer.findings ?? []).some((finding) => finding.evidence.some((evidence) => evidence.freshness !== "fresh"))) return null;
  const told = el("span.soft", { role: "status" });
  const press = async (event) => {
    event.currentTarget.disabled = true;
    try {
      const counts = await Promise.all(domains.map((domain) => remove(`cache/${encodeURIComponent(domain)}`)));
      say(told, `${plural(counts.reduce((sum, one) => sum + one.removed, 0), "answer")} forgotten; check again`);
    } catch (error) {
      say(told, error.message);
    }
  };
  return el("p.actions", {}, el("button", { type: "button", click: press }, "Forget what the cache knows of these domains"), told);
}
