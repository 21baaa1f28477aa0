// The latest decisions, live, with filters; and one decision in a dialog.
//
// New rows appear at the top. While the pointer or the focus is on a row they wait, so that no row moves away from the
// pointer; the heading shows how many wait.

import { get } from "./api.js";
import { byId, showProblem, el, fill, setText } from "./dom.js";
import { status } from "./now.js";
import { badge, view } from "./record.js";
import { IDENTITIES, REASONS, bare, day, identity as named, plural, readable, time } from "./words.js";

const PAGE = 40;
const MOST = 500;
const FILTERS = ["verdict", "reason", "identity", "domain", "client"];

let rows = [];
let waiting = [];
let next = null;
// The cursor behind the page that `waiting` came with.
let nextAfterWaiting = null;
let paused = false;
let shownFilters = null;
// The number of decisions opened so far, to discard the response for an earlier one.
let opened = 0;

export function start() {
  const form = byId("filters");
  for (const reason of REASONS) form.reason.append(el("option", { value: reason }, readable(reason)));
  for (const identity of IDENTITIES) form.identity.append(el("option", { value: identity }, named(identity)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filtersChanged);
  form.addEventListener("reset", () => setTimeout(filtersChanged));
  byId("latest-hold").addEventListener("click", togglePause);
  byId("older").addEventListener("click", older);
  const place = byId("rows");
  place.addEventListener("pointerleave", insertWaiting);
  place.addEventListener("focusout", () => setTimeout(insertWaiting));
  place.addEventListener("click", open);
  byId("decision-close").addEventListener("click", () => byId("decision").close());
}

// Takes the filters from the URL.
export function filter(parameters) {
  const form = byId("filters");
  let changed = shownFilters === null;
  for (const name of FILTERS) {
    const value = parameters.get(name) ?? "";
    changed ||= form[name].value !== value;
    form[name].value = value;
  }
  if (changed) reset();
  return changed;
}

function filtersChanged() {
  const set = Object.entries(values()).filter(([, value]) => value);
  // Only the URL holds the filters, so that they can be bookmarked and shared.
  location.hash = set.length > 0 ? `traffic?${new URLSearchParams(set)}` : "traffic";
}

function values() {
  const form = byId("filters");
  return Object.fromEntries(FILTERS.map((name) => [name, form[name].value.trim()]));
}

function reset() {
  [rows, waiting, next, nextAfterWaiting, shownFilters] = [[], [], null, null, null];
}

export async function refresh() {
  if (status && !status.history.on) {
    off("History is off: history.path is empty, so no decisions are kept. The log has a line for each decision.");
    return;
  }
  const question = JSON.stringify(values());
  let answer;
  try {
    answer = await get("decisions", { ...values(), limit: PAGE });
  } catch (error) {
    if (error.status !== 400 && error.status !== 422) throw error;
    showProblem(byId("latest-problem"), error.message);
    return;
  }
  // The filters may have changed meanwhile.
  if (question !== JSON.stringify(values())) return;
  showProblem(byId("latest-problem"), null);
  if (shownFilters !== question) {
    [rows, waiting, next, shownFilters] = [answer.decisions, [], answer.next, question];
    draw();
    return;
  }
  const known = new Set(rows.map(key));
  const fresh = answer.decisions.filter((one) => !known.has(key(one)));
  [waiting, nextAfterWaiting] = [fresh, answer.next];
  insertWaiting();
}

export function off(why) {
  reset();
  fill(byId("rows"), el("p.empty", {}, why));
  byId("older").hidden = true;
  setText(byId("latest-state"), "");
}

// A transaction may have several decisions, one for each recipient.
const key = (one) => `${one.id} ${one.at} ${one.rcpt}`;

function isBusy() {
  const place = byId("rows");
  return paused || byId("decision").open || place.matches(":hover") || place.contains(document.activeElement);
}

function insertWaiting() {
  if (waiting.length > 0 && !isBusy()) {
    // A full page of new rows leaves a gap to the old ones; the list starts anew, and "Older" continues behind the new rows.
    if (waiting.length >= PAGE) [rows, next] = [waiting, nextAfterWaiting];
    else rows = [...waiting, ...rows].slice(0, MOST);
    const fresh = new Set(waiting.map(key));
    waiting = [];
    draw(fresh);
  }
  showState();
}

function showState() {
  const more = waiting.length >= PAGE ? `${PAGE} or more` : waiting.length;
  const wait = waiting.length > 0 ? `, ${more} newer` : "";
  setText(byId("latest-state"), paused ? `paused${wait}` : isBusy() && waiting.length > 0 ? `on hold while you read${wait}` : "live");
}

function togglePause() {
  paused = !paused;
  byId("latest-hold").setAttribute("aria-pressed", paused ? "true" : "false");
  setText(byId("latest-hold"), paused ? "Resume" : "Pause");
  insertWaiting();
}

async function older() {
  const button = byId("older");
  const [question, before] = [shownFilters, next];
  button.disabled = true;
  try {
    const answer = await get("decisions", { ...values(), limit: PAGE, before });
    // The list may have changed meanwhile.
    if (question === shownFilters && before === next) {
      const known = new Set(rows.map(key));
      rows = [...rows, ...answer.decisions.filter((one) => !known.has(key(one)))];
      next = answer.next;
      draw();
    }
  } catch (error) {
    showProblem(byId("latest-problem"), error.message);
  }
  button.disabled = false;
}

function draw(fresh = new Set()) {
  byId("older").hidden = next === null || rows.length >= MOST;
  const place = byId("rows");
  if (rows.length === 0) {
    const some = Object.values(values()).some(Boolean);
    fill(place, el("p.empty", {}, some ? "No decision fits these filters." : "No decisions yet. They appear here as mail comes in."));
    showState();
    return;
  }
  const body = place.querySelector("tbody") ?? head(place);
  // Nodes of rows that stay are kept, and the focus with them.
  const existing = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = rows.map((one) => existing.get(key(one)) ?? line(one, fresh.has(key(one))));
  const keep = new Set(wanted);
  for (const row of [...body.children]) if (!keep.has(row)) row.remove();
  wanted.forEach((row, at) => {
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  });
  showState();
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
    el("td.why", {}, one.reason ? readable(one.reason) : one.rung ? `by ${readable(one.rung)}` : "", one.identity && el("small", {}, named(one.identity))),
    el("td.sender", {}, el("span", {}, bare(one.mail_from || "–")), forged && el("small", {}, `From: ${from}`)),
    el("td.client", {}, el("span", {}, one.client), el("small", {}, name || one.helo || "")),
    el("td.rcpt", {}, bare(one.rcpt || "–")));
}

// A click anywhere in the row opens it, unless the user selected text.
function open(event) {
  const row = event.target.closest("tr[data-key]");
  if (!row || event.target.closest("a") || String(getSelection())) return;
  row.querySelector("a").focus();
  row.querySelector("a").click();
}

// Opens the dialog for a decision; `closed` is called when the dialog closes.
export async function show(id, closed) {
  const dialog = byId("decision");
  const body = byId("decision-body");
  opened += 1;
  const turn = opened;
  setText(byId("decision-title"), `Decision ${id}`);
  fill(body, el("p.soft", { role: "status" }, "Loading …"));
  if (!dialog.open) {
    dialog.showModal();
    dialog.addEventListener("close", () => { closed(); insertWaiting(); }, { once: true });
  }
  try {
    const answer = await get(`decisions/${encodeURIComponent(id)}`);
    if (turn !== opened) return;
    const all = [answer, ...(answer.also ?? [])];
    fill(body, ...all.flatMap((one, at) => [all.length > 1 && el("p.soft", {}, `${at + 1} of ${plural(all.length, "decision")}`), ...view(one)]), checkLink(all[0]));
  } catch (error) {
    if (turn === opened) fill(body, el("p.problem", { role: "alert" }, error.message));
  }
}

function checkLink(one) {
  const first = (value) => (Array.isArray(value) ? value[0] : value)?.split(",")[0].trim();
  const question = { client: one.client, helo: one.helo, mail_from: bare(one.mail_from ?? ""), from: first(one.from), reply_to: first(one.reply_to) };
  const set = Object.entries(question).filter(([, value]) => value);
  return el("p.actions", {}, el("a.button", { href: `#check?${new URLSearchParams(set)}` }, "Check again now"));
}
