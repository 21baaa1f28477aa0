// The latest decisions, live, or those that a search finds.
//
// New rows appear at the top. While the pointer or the focus is on a row they wait, so that no row moves away from the
// pointer; the heading shows how many wait.

import { get } from "./api.js";
import { byId, showProblem, el, fill, setText } from "./dom.js";
import * as filters from "./filters.js";
import * as gates from "./gates.js";
import { status } from "./now.js";
import * as permits from "./permits.js";
import { key, line, table } from "./rows.js";

const PAGE = 40;
const MOST = 500;

let rows = [];
let waiting = [];
let next = null;
// The cursor behind the page that `waiting` came with.
let nextAfterWaiting = null;
let paused = false;
let shownFilters = null;
// The gates that didn't answer last.
let missing = [];
// A gate answers again, so that the list has to start anew.
let anew = false;
// The day of the rows, as those of other days have their date.
let day = null;

export function start() {
  byId("latest-hold").addEventListener("click", togglePause);
  byId("older").addEventListener("click", older);
  const place = byId("rows");
  place.addEventListener("pointerleave", insertWaiting);
  place.addEventListener("focusout", () => setTimeout(insertWaiting));
  place.addEventListener("click", open);
  byId("decision").addEventListener("close", insertWaiting);
  gates.start(filters.apply);
}

// Takes the filters and the gates from the URL.
export function filter(parameters) {
  const read = [filters.read(parameters), gates.read(parameters)];
  const changed = read.includes(true) || shownFilters === null;
  if (changed) reset();
  return changed;
}

function reset() {
  [rows, waiting, next, nextAfterWaiting, shownFilters] = [[], [], null, null, null];
  [missing, anew] = [[], false];
}

const wanted = () => ({ ...filters.values(), ...gates.values() });

export async function refresh() {
  gates.showChoice();
  if (status && !status.history.on && !gates.all()) {
    off("History is off: history.path is empty, so no decisions are kept. The log has a line for each decision.");
    return;
  }
  const question = JSON.stringify(wanted());
  let answer;
  try {
    answer = await get("decisions", { ...wanted(), limit: PAGE });
  } catch (error) {
    if (error.status !== 400 && error.status !== 422) throw error;
    showProblem(byId("latest-problem"), error.message);
    return;
  }
  // The filters may have changed meanwhile.
  if (question !== JSON.stringify(wanted())) return;
  showProblem(byId("latest-problem"), null);
  gates.remember(answer.decisions);
  const before = missing;
  missing = answer.missing ?? [];
  gates.showMissing(missing);
  if (shownFilters !== question) {
    [rows, waiting, next, shownFilters] = [answer.decisions, [], answer.next, question];
    draw();
    return;
  }
  // The gates whose decisions aren't in the rows before these.
  anew ||= before.some((gone) => !missing.some((one) => one.node === gone.node));
  const known = new Set(rows.map(key));
  const fresh = answer.decisions.filter((one) => !known.has(key(one)));
  [waiting, nextAfterWaiting] = [anew ? answer.decisions : fresh, answer.next];
  insertWaiting();
}

export function off(why) {
  reset();
  gates.showMissing([]);
  fill(byId("rows"), el("p.empty", {}, why));
  byId("older").hidden = true;
  setText(byId("latest-state"), "");
}

function isBusy() {
  const place = byId("rows");
  return paused || document.querySelector("dialog[open]") || place.matches(":hover") || place.contains(document.activeElement);
}

function insertWaiting() {
  if (waiting.length > 0 && !isBusy()) {
    // A full page of new rows leaves a gap to the old ones; the list starts anew, and "Older" continues behind the new rows.
    // So it does where a gate answers again.
    const known = new Set(rows.map(key));
    const fresh = new Set(waiting.map(key).filter((one) => !known.has(one)));
    if (anew || waiting.length >= PAGE) [rows, next] = [waiting, nextAfterWaiting];
    else rows = inOrder([...waiting, ...rows]).slice(0, MOST);
    [waiting, anew] = [[], false];
    draw(fresh);
  }
  showState();
}

// Those of another gate may come late, and between others.
function inOrder(all) {
  return gates.all() ? all.sort((one, other) => (one.at < other.at ? 1 : one.at > other.at ? -1 : 0)) : all;
}

function showState() {
  const more = waiting.length >= PAGE ? `${PAGE} or more` : waiting.length;
  const wait = waiting.length > 0 ? `, ${anew ? "a gate answers again" : `${more} newer`}` : "";
  setText(byId("latest-state"), paused ? `paused${wait}` : isBusy() && waiting.length > 0 ? `on hold while you read${wait}` : "live");
  setText(byId("latest-title"), filters.some() ? "Decisions found" : "Latest decisions");
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
    const answer = await get("decisions", { ...wanted(), limit: PAGE, before });
    // The list may have changed meanwhile.
    if (question === shownFilters && before === next) {
      const known = new Set(rows.map(key));
      gates.remember(answer.decisions);
      rows = inOrder([...rows, ...answer.decisions.filter((one) => !known.has(key(one)))]);
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
    fill(place, el("p.empty", {}, nothing()));
    showState();
    return;
  }
  const today = new Date().toDateString();
  const [body, whole] = place.querySelector("tbody") && day === today ? [place.querySelector("tbody"), null] : table();
  if (whole) fill(place, whole);
  day = today;
  // Nodes of rows that stay are kept, and the focus with them.
  const existing = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = rows.map((one) => existing.get(key(one)) ?? line(one, fresh.has(key(one)), permits.ask));
  const keep = new Set(wanted);
  for (const row of [...body.children]) if (!keep.has(row)) row.remove();
  wanted.forEach((row, at) => {
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  });
  showState();
}

// A page of a search may be empty before its end.
function nothing() {
  if (!filters.some()) return "No decisions yet. They appear here as mail comes in.";
  return next === null ? "No decision fits these filters." : "No decision fits these filters among the newest ones; “Older” goes on searching.";
}

// A click anywhere in the row opens it, unless the user selected text.
function open(event) {
  const row = event.target.closest("tr[data-key]");
  if (!row || event.target.closest("a, button") || String(getSelection())) return;
  row.querySelector("a").focus();
  row.querySelector("a").click();
}
