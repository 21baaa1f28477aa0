// The latest decisions, live, with filters; and one of them in a dialog.
//
// Rows come in above while nobody is at them. While the pointer or the focus is on a row, they wait, so that nothing
// moves away under a hand; how many wait is told.

import { get } from "./api.js";
import { byId, complain, el, fill, say } from "./dom.js";
import { status } from "./now.js";
import { badge, view } from "./record.js";
import { IDENTITIES, REASONS, bare, day, identity as named, plural, spoken, time } from "./words.js";

const PAGE = 40;
const MOST = 500;
const FILTERS = ["verdict", "reason", "identity", "domain", "client"];

let rows = [];
let waiting = [];
let next = null;
// Where the page that `waiting` came with goes on.
let beyond = null;
let paused = false;
let asked = null;
// How often a decision was opened: the answer for one before isn't shown.
let opened = 0;

export function start() {
  const form = byId("filters");
  for (const reason of REASONS) form.reason.append(el("option", { value: reason }, spoken(reason)));
  for (const identity of IDENTITIES) form.identity.append(el("option", { value: identity }, named(identity)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filtered);
  form.addEventListener("reset", () => setTimeout(filtered));
  byId("latest-hold").addEventListener("click", hold);
  byId("older").addEventListener("click", older);
  const place = byId("rows");
  place.addEventListener("pointerleave", settle);
  place.addEventListener("focusout", () => setTimeout(settle));
  place.addEventListener("click", open);
  byId("decision-close").addEventListener("click", () => byId("decision").close());
}

// The filters as the address has them.
export function filter(parameters) {
  const form = byId("filters");
  let changed = asked === null;
  for (const name of FILTERS) {
    const value = parameters.get(name) ?? "";
    changed ||= form[name].value !== value;
    form[name].value = value;
  }
  if (changed) forget();
  return changed;
}

function filtered() {
  const set = Object.entries(values()).filter(([, value]) => value);
  // The address is the filter's one home: it can be kept and sent.
  location.hash = set.length > 0 ? `traffic?${new URLSearchParams(set)}` : "traffic";
}

function values() {
  const form = byId("filters");
  return Object.fromEntries(FILTERS.map((name) => [name, form[name].value.trim()]));
}

function forget() {
  [rows, waiting, next, beyond, asked] = [[], [], null, null, null];
}

export async function refresh() {
  if (status && !status.history.on) {
    off("History is off (history.path is empty), so no decisions are kept. The log has one line for each.");
    return;
  }
  const question = JSON.stringify(values());
  let answer;
  try {
    answer = await get("decisions", { ...values(), limit: PAGE });
  } catch (error) {
    if (error.status !== 400 && error.status !== 422) throw error;
    complain(byId("latest-problem"), error.message);
    return;
  }
  // Meanwhile somebody may have asked for something else.
  if (question !== JSON.stringify(values())) return;
  complain(byId("latest-problem"), null);
  if (asked !== question) {
    [rows, waiting, next, asked] = [answer.decisions, [], answer.next, question];
    draw();
    return;
  }
  const known = new Set(rows.map(key));
  const fresh = answer.decisions.filter((one) => !known.has(key(one)));
  [waiting, beyond] = [fresh, answer.next];
  settle();
}

export function off(why) {
  forget();
  fill(byId("rows"), el("p.empty", {}, why));
  byId("older").hidden = true;
  say(byId("latest-state"), "");
}

// One transaction may have several decisions, for several recipients.
const key = (one) => `${one.id} ${one.at} ${one.rcpt}`;

function isBusy() {
  const place = byId("rows");
  return paused || byId("decision").open || place.matches(":hover") || place.contains(document.activeElement);
}

function settle() {
  if (waiting.length > 0 && !isBusy()) {
    // After more than a page at once there is a gap, which only a new beginning closes: "Older" goes on from there.
    if (waiting.length >= PAGE) [rows, next] = [waiting, beyond];
    else rows = [...waiting, ...rows].slice(0, MOST);
    const fresh = new Set(waiting.map(key));
    waiting = [];
    draw(fresh);
  }
  tell();
}

function tell() {
  const more = waiting.length >= PAGE ? `${PAGE} or more` : waiting.length;
  const wait = waiting.length > 0 ? `, ${more} newer` : "";
  say(byId("latest-state"), paused ? `paused${wait}` : isBusy() && waiting.length > 0 ? `held while you read${wait}` : "live");
}

function hold() {
  paused = !paused;
  byId("latest-hold").setAttribute("aria-pressed", paused ? "true" : "false");
  say(byId("latest-hold"), paused ? "Go on" : "Pause");
  settle();
}

async function older() {
  const button = byId("older");
  const [question, before] = [asked, next];
  button.disabled = true;
  try {
    const answer = await get("decisions", { ...values(), limit: PAGE, before });
    // What it goes on from may have left the list meanwhile.
    if (question === asked && before === next) {
      const known = new Set(rows.map(key));
      rows = [...rows, ...answer.decisions.filter((one) => !known.has(key(one)))];
      next = answer.next;
      draw();
    }
  } catch (error) {
    complain(byId("latest-problem"), error.message);
  }
  button.disabled = false;
}

function draw(fresh = new Set()) {
  byId("older").hidden = next === null || rows.length >= MOST;
  const place = byId("rows");
  if (rows.length === 0) {
    const some = Object.values(values()).some(Boolean);
    fill(place, el("p.empty", {}, some ? "No decision fits these filters." : "No decisions yet. They appear here as mail comes in."));
    tell();
    return;
  }
  const body = place.querySelector("tbody") ?? head(place);
  // Rows that stay are the same nodes.
  const there = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = rows.map((one) => there.get(key(one)) ?? line(one, fresh.has(key(one))));
  const keep = new Set(wanted);
  for (const row of [...body.children]) if (!keep.has(row)) row.remove();
  wanted.forEach((row, at) => {
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  });
  tell();
}

function head(place) {
  const heads = ["Time", "Verdict", "Why", "Sender", "Client", "Recipient"];
  const body = el("tbody");
  fill(place, el("table.decisions", {}, el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))), body));
  return body;
}

function line(one, isFresh) {
  const at = new Date(one.at);
  const name = Array.isArray(one.ptr) ? one.ptr[0] : one.ptr;
  const from = Array.isArray(one.from) ? one.from.join(", ") : one.from;
  const forged = from && from !== bare(one.mail_from ?? "");
  return el(`tr${isFresh ? ".fresh" : ""}`, { "data-key": key(one) },
    el("td.time", {}, el("a", { href: `#decision/${encodeURIComponent(one.id)}`, title: `${day(at)}, id ${one.id}` }, el("time", { datetime: one.at }, time(at)))),
    el("td.verdict", {}, badge(one)),
    el("td.why", {}, one.reason ? spoken(one.reason) : one.rung ? `by ${spoken(one.rung)}` : "", one.identity && el("small", {}, named(one.identity))),
    el("td.sender", {}, el("span", {}, bare(one.mail_from || "–")), forged && el("small", {}, `From: ${from}`)),
    el("td.client", {}, el("span", {}, one.client), el("small", {}, name || one.helo || "")),
    el("td.rcpt", {}, bare(one.rcpt || "–")));
}

// A click anywhere in the row, unless a text was selected there.
function open(event) {
  const row = event.target.closest("tr[data-key]");
  if (!row || event.target.closest("a") || String(getSelection())) return;
  row.querySelector("a").focus();
  row.querySelector("a").click();
}

// Opens the dialog on a decision; `closed` is called when it is shut.
export async function show(id, closed) {
  const dialog = byId("decision");
  const body = byId("decision-body");
  opened += 1;
  const turn = opened;
  say(byId("decision-title"), `Decision ${id}`);
  fill(body, el("p.soft", { role: "status" }, "Loading …"));
  if (!dialog.open) {
    dialog.showModal();
    dialog.addEventListener("close", () => { closed(); settle(); }, { once: true });
  }
  try {
    const answer = await get(`decisions/${encodeURIComponent(id)}`);
    if (turn !== opened) return;
    const all = [answer, ...(answer.also ?? [])];
    fill(body, ...all.flatMap((one, at) => [all.length > 1 && el("p.soft", {}, `${at + 1} of ${plural(all.length, "decision")}`), ...view(one)]), again(all[0]));
  } catch (error) {
    if (turn === opened) fill(body, el("p.problem", { role: "alert" }, error.message));
  }
}

function again(one) {
  const first = (value) => (Array.isArray(value) ? value[0] : value)?.split(",")[0].trim();
  const question = { client: one.client, helo: one.helo, mail_from: bare(one.mail_from ?? ""), from: first(one.from), reply_to: first(one.reply_to) };
  const set = Object.entries(question).filter(([, value]) => value);
  return el("p.actions", {}, el("a.button", { href: `#check?${new URLSearchParams(set)}` }, "Check it again now"));
}
