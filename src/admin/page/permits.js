// Permits: exemptions given at run time. "Let in" makes one from a refused decision; the view lists and removes them.
//
// Writing needs the token. It is asked for when none is known, and kept in the memory of this page only.

import { get, token, write } from "./api.js";
import { byId, el, fill, setText, showProblem } from "./dom.js";
import { fullWhen } from "./times.js";
import { count, duration, identity as named, plural, readable } from "./words.js";

// Identities that a permit lets in alone.
const fields = { from: "From:", reply_to: "Reply-To:" };

// The decision, or the number of the permit, that the dialog is about.
let subject = null;
let shown = "";

export function start() {
  byId("permit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("permit-cancel").addEventListener("click", () => byId("permit").close());
  byId("done-close").addEventListener("click", () => { byId("done").hidden = true; });
}

// A refusal by a rule. What no rule refused is refused from everybody.
export const canBeLetIn = (one) => Boolean(one.refused && one.identity && one.id);

// Opens the form for a decision.
export function ask(one) {
  const form = byId("permit-form");
  subject = { one };
  setText(byId("permit-title"), `Let in mail like ${one.id}`);
  fill(byId("permit-text"), "Refused: ", el("b", {}, `${named(one.identity)} ${readable(one.reason ?? "")}`), ". From now on mail passes that comes from the network of ", el("code", {}, one.client),
    ...like(one.permit_for));
  byId("permit-time").hidden = false;
  setText(byId("permit-send"), "Let in");
  open(form);
}

// What beside the network a permit with this id has as its condition, and how far it reaches.
function like(wanted) {
  if (!wanted) return [". But the decision names no domain that a permit could be for: allow its network in a terminal, with rmxd allow --client."];
  const domain = el("code", {}, wanted.domain);
  const field = fields[wanted.identity];
  return field
    ? [` and has the ${field} domain `, domain, `, whatever the rules for ${field} say.`]
    : [" and has the sender domain ", domain, ", whatever the rules say."];
}

function askToRemove(permit) {
  const form = byId("permit-form");
  subject = { permit };
  setText(byId("permit-title"), `Remove permit ${permit.number}`);
  fill(byId("permit-text"), "The rules hold again for ", ...what(permit), ".");
  byId("permit-time").hidden = true;
  setText(byId("permit-send"), "Remove");
  open(form);
}

function open(form) {
  form.reset();
  showProblem(byId("permit-problem"), null);
  askForToken(!token.isKnown());
  if (!byId("permit").open) byId("permit").showModal();
}

function askForToken(wanted) {
  byId("permit-token").hidden = !wanted;
}

async function submit() {
  const form = byId("permit-form");
  const [button, problem] = [byId("permit-send"), byId("permit-problem")];
  const secret = form.token.value;
  showProblem(problem, null);
  button.disabled = true;
  const { one, permit } = subject;
  try {
    if (permit) {
      const removed = await write("DELETE", `permits/${permit.number}`, null, secret);
      done(`Permit ${permit.number} is removed.`, removed?.hint && ` ${removed.hint}`);
    } else {
      const made = await write("POST", "permits", { id: one.id, for: form.time.value, note: form.note.value.trim() }, secret);
      const time = form.querySelector(":checked").parentElement.textContent.trim();
      done(`Mail like ${one.id} is let in for ${time} (permit ${made.number}): `, ...what(made), ".", made.hint && ` ${made.hint}`);
    }
    byId("permit").close();
    refresh().catch(() => {});
  } catch (error) {
    if (error.needsToken) {
      token.forget();
      askForToken(true);
      form.token.value = "";
      form.token.focus();
    }
    showProblem(problem, error.message);
  }
  button.disabled = false;
}

function done(...parts) {
  fill(byId("done-text"), ...parts);
  byId("done").hidden = false;
}

export async function refresh() {
  const answer = await get("permits");
  const now = Date.now();
  const permits = answer.permits.map((one) => ({ ...one, left: one.until ? Math.max(0, Date.parse(one.until) - now) / 1000 : null }));
  // Without changes the nodes stay; the times left change by the minute.
  const text = JSON.stringify([answer.on_disk, answer.shared, ...permits.map((one) => ({ ...one, left: one.left === null ? null : left(one.left) }))]);
  if (text === shown) return;
  shown = text;
  setText(byId("permits-count"), permits.length > 0 ? `${plural(permits.length, "permit")} of at most ${count(answer.most)}` : "");
  byId("permits-memory").hidden = answer.on_disk !== false;
  byId("permits-unshared").hidden = answer.shared !== false;
  fill(byId("permits-rows"), permits.length === 0 ? empty() : table(permits));
}

function empty() {
  return el("p.panel.empty", {}, "No permits. “Let in” beside a refused decision makes one; so does rmxd allow in a terminal.");
}

function table(permits) {
  const heads = ["No.", "Lets in", "Time left", "Note", "Decision", ""];
  return el("section.panel", { "aria-label": "All permits" }, el("table.permits", {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => (head ? el("th", { scope: "col" }, head) : el("td"))))),
    el("tbody", {}, ...permits.map(line))));
}

function line(permit) {
  return el("tr", { "data-number": permit.number },
    el("td.number", {}, String(permit.number)),
    el("td.what", {}, ...what(permit)),
    el("td.left", {}, permit.left === null ? "until removed" : [left(permit.left), el("small", {}, "until ", fullWhen(permit.until))]),
    el("td.note", {}, permit.note || el("span.soft", {}, "–"), el("small", {}, "since ", fullWhen(permit.created), permit.node && `, node ${permit.node}`)),
    el("td.decision", {}, permit.decision ? el("a", { href: `#decision/${encodeURIComponent(permit.decision)}` }, permit.decision) : el("span.soft", {}, "by hand")),
    el("td.act", {}, el("button.small", { type: "button", "aria-label": `Remove permit ${permit.number}`, click: () => askToRemove(permit) }, "Remove")));
}

// All that is named has to fit.
function what({ client, domain, recipient, identity }) {
  const parts = [["client", client], [`${fields[identity] ?? "sender"} domain`, domain], ["recipient", recipient]].filter(([, value]) => value);
  return parts.flatMap(([name, value], at) => [at > 0 && el("span.soft", {}, " and "), el("span.soft", {}, `${name} `), el("code", {}, value)]);
}

const left = (seconds) => (seconds < 60 ? "under a minute" : duration(seconds));
