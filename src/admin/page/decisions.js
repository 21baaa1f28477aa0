// The latest decisions, live, or those that a search finds.
//
// New rows appear at the top. While the pointer or the focus is on a row they wait, so that no row moves away from the
// pointer; the heading shows how many wait.

import { get } from "./api.js";
import { byId, showProblem, el, fill, setText } from "./dom.js";
import * as filters from "./filters.js";
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
}

// Takes the filters from the URL.
export function filter(parameters) {
  const changed = filters.read(parameters) || shownFilters === null;
  if (changed) reset();
  return changed;
}

function reset() {
  [rows, waiting, next, nextAfterWaiting, shownFilters] = [[], [], null, null, null];
}

export async function refresh() {
  if (status && !status.history.on) {
    off("History is off: history.path is empty, so no decisions are kept. The log has a line for each decision.");
    return;
  }
  const question = JSON.stringify(filters.values());
  let answer;
  try {
    answer = await get("decisions", { ...filters.values(), limit: PAGE });
  } catch (error) {
    if (error.status !== 400 && error.status !== 422) throw error;
    showProblem(byId("latest-problem"), error.message);
    return;
  }
  // The filters may have changed meanwhile.
  if (question !== JSON.stringify(filters.values())) return;
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

function isBusy() {
  const place = byId("rows");
  return paused || document.querySelector("dialog[open]") || place.matches(":hover") || place.contains(document.activeElement);
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
    const answer = await get("decisions", { ...filters.values(), limit: PAGE, before });
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
