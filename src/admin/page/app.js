// The page: which view is shown, and the beat at which it asks.
//
// The address says what is shown (`#traffic?domain=...`, `#decision/ID`), so that each view can be kept, sent and gone
// back from. Nothing is asked while the page can't be seen.

import { token } from "./api.js";
import * as audit from "./audit.js";
import * as check from "./check.js";
import * as decisions from "./decisions.js";
import { byId, complain, say } from "./dom.js";
import { get } from "./api.js";
import * as now from "./now.js";
import * as plot from "./plot.js";
import * as tops from "./tops.js";
import * as would from "./would.js";
import { time } from "./words.js";

const BEAT = 2000;
// What changes slowly, in beats.
const SLOW = 5;
const LONGEST = 15_000;
const VIEWS = ["traffic", "would", "check", "audit"];

let view = "traffic";
let home = "traffic";
let beats = 0;
let failures = 0;
let last = null;
let timer = null;
let running = false;
let again = false;
let locked = false;

function start() {
  plot.start();
  decisions.start();
  would.start();
  check.start();
  audit.start();
  addEventListener("hashchange", () => { route(); soon(); });
  document.addEventListener("visibilitychange", soon);
  byId("retry").addEventListener("click", soon);
  byId("token-form").addEventListener("submit", unlock);
  byId("skip").addEventListener("click", skip);
  route();
  beat();
}

// Shows what the address names.
function route() {
  const [path, query] = location.hash.slice(1).split("?");
  const [name, id] = path.split("/");
  const parameters = new URLSearchParams(query ?? "");
  if (name === "decision" && id) {
    place();
    if (!locked) decisions.show(decoded(id), () => history.replaceState(null, "", `#${home}`));
    return;
  }
  if (name && !VIEWS.includes(name)) {
    place();
    return;
  }
  const dialog = byId("decision");
  view = name || "traffic";
  home = location.hash.slice(1) || "traffic";
  if (dialog.open) dialog.close();
  place();
  if (view === "traffic" && decisions.filter(parameters) && query) byId("latest-title").scrollIntoView();
  if (view === "check") check.prefill(parameters);
  if (view === "audit") audit.prefill(parameters);
  beats = 0;
}

// Of an address that somebody mangled, as it stands.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The address stays: it names the view and its filters.
function skip(event) {
  event.preventDefault();
  byId("content").focus();
}

function place() {
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== (locked ? "token" : view);
  for (const link of document.querySelectorAll(".views a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function soon() {
  clearTimeout(timer);
  beat();
}

async function beat() {
  if (locked || document.hidden) return;
  if (running) {
    // What is asked now may be for a view that nobody looks at any more.
    again = true;
    return;
  }
  running = true;
  try {
    await refresh();
    beats += 1;
    reached();
  } catch (error) {
    if (error.wantsToken) lock(error);
    else missed(error);
  }
  running = false;
  clearTimeout(timer);
  const wait = again ? 0 : Math.min(LONGEST, BEAT * 2 ** Math.min(failures, 3));
  if (again) [again, beats] = [false, 0];
  if (!locked) timer = setTimeout(beat, wait);
}

async function refresh() {
  now.show(await get("status"));
  const slowly = beats % SLOW === 0;
  if (view === "traffic") {
    if (slowly) top();
    const fails = await Promise.allSettled([get("series").then(plot.show), decisions.refresh()]);
    const failed = fails.find((one) => one.status === "rejected");
    if (failed) throw failed.reason;
  } else if (view === "would" && slowly) {
    await would.refresh();
  }
}

// Not waited for: a long history may take longer to be summed up than a beat.
function top() {
  if (now.status.history.on) tops.refresh();
  else tops.off("History is off (history.path is empty).");
}

function reached() {
  failures = 0;
  last = new Date();
  byId("gone").hidden = true;
  document.body.classList.remove("gone");
  byId("link").className = "link good";
  say(byId("link"), "live");
}

function missed(error) {
  failures += 1;
  const since = last ? ` since ${time(last)}` : "";
  const words = error.isGone ? `No answer from rmxd${since}: ${error.message}.` : `rmxd says: ${error.message}.`;
  // One that is lost may be chance.
  if (failures < 2 && last && error.isGone) return;
  byId("gone").hidden = false;
  document.body.classList.toggle("gone", error.isGone);
  say(byId("gone-text"), `${words} Trying again.`);
  byId("link").className = "link bad";
  say(byId("link"), error.isGone ? "no answer" : "in trouble");
}

function lock(error) {
  locked = true;
  if (byId("decision").open) byId("decision").close();
  complain(byId("token-problem"), token.isSet() ? error.message : null);
  token.drop();
  byId("gone").hidden = true;
  byId("link").className = "link";
  say(byId("link"), "locked");
  place();
  byId("token-form").token.focus();
}

function unlock(event) {
  event.preventDefault();
  const field = byId("token-form").token;
  token.set(field.value);
  field.value = "";
  locked = false;
  say(byId("link"), "connecting");
  place();
  byId("content").focus();
  route();
  soon();
}

start();
