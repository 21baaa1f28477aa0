// The page: the current view, and the refresh cycle.
//
// The fragment of the URL names the view (`#traffic?domain=...`, `#decision/ID`), so that bookmarks, links and the back button
// work. A hidden page sends no requests.

import { token } from "./api.js";
import * as audit from "./audit.js";
import * as check from "./check.js";
import * as decisions from "./decisions.js";
import * as detail from "./detail.js";
import { byId, showProblem, setText } from "./dom.js";
import * as filters from "./filters.js";
import * as find from "./find.js";
import { get } from "./api.js";
import * as now from "./now.js";
import * as permits from "./permits.js";
import * as plot from "./plot.js";
import * as tops from "./tops.js";
import * as whatif from "./whatif.js";
import * as would from "./would.js";
import { time } from "./words.js";

const PERIOD = 2000;
// Cycles between two requests for the parts that change slowly.
const SLOW_CYCLES = 5;
const LONGEST_WAIT = 15_000;
const VIEWS = ["traffic", "would", "permits", "check", "audit"];

let view = "traffic";
let home = "traffic";
let cycles = 0;
let failures = 0;
let last = null;
let timer = null;
let running = false;
let again = false;
let locked = false;

function start() {
  plot.start();
  filters.start();
  decisions.start();
  detail.start();
  find.start();
  permits.start();
  would.start();
  whatif.start();
  check.start();
  audit.start();
  addEventListener("span", () => { cycles = 0; refreshNow(); });
  addEventListener("hashchange", () => { route(); refreshNow(); });
  document.addEventListener("visibilitychange", refreshNow);
  byId("retry").addEventListener("click", refreshNow);
  byId("token-form").addEventListener("submit", unlock);
  byId("skip").addEventListener("click", skip);
  route();
  cycle();
}

// Shows the view that the URL names.
function route() {
  const [path, query] = location.hash.slice(1).split("?");
  const [name, id] = path.split("/");
  const parameters = new URLSearchParams(query ?? "");
  if (name === "decision" && id) {
    showView();
    if (!locked) detail.show(decode(id), () => history.replaceState(null, "", `#${home}`));
    return;
  }
  if (name && !VIEWS.includes(name)) {
    showView();
    return;
  }
  view = name || "traffic";
  home = location.hash.slice(1) || "traffic";
  detail.close();
  showView();
  if (view === "traffic" && decisions.filter(parameters) && query) byId("latest").scrollIntoView();
  if (view === "check") check.prefill(parameters);
  if (view === "audit") audit.prefill(parameters);
  cycles = 0;
}

// A broken percent-encoding stays as it is.
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The URL must not change: it names the view and its filters.
function skip(event) {
  event.preventDefault();
  byId("content").focus();
}

function showView() {
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== (locked ? "token" : view);
  for (const link of document.querySelectorAll(".views a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function refreshNow() {
  clearTimeout(timer);
  cycle();
}

async function cycle() {
  if (locked || document.hidden) return;
  if (running) {
    // The running cycle may be for the previous view.
    again = true;
    return;
  }
  running = true;
  try {
    await refresh();
    cycles += 1;
    showLive();
  } catch (error) {
    if (error.needsToken) lock(error);
    else showFailure(error);
  }
  running = false;
  clearTimeout(timer);
  const wait = again ? 0 : Math.min(LONGEST_WAIT, PERIOD * 2 ** Math.min(failures, 3));
  if (again) [again, cycles] = [false, 0];
  if (!locked) timer = setTimeout(cycle, wait);
}

async function refresh() {
  now.show(await get("status"));
  const slowly = cycles % SLOW_CYCLES === 0;
  if (view === "traffic") {
    if (slowly) top();
    const series = slowly || plot.isFine() ? plot.refresh() : null;
    const fails = await Promise.allSettled([series, decisions.refresh()]);
    const failed = fails.find((one) => one.status === "rejected");
    if (failed) throw failed.reason;
  } else if (view === "would" && slowly) {
    await would.refresh();
  } else if (view === "permits" && slowly) {
    await permits.refresh();
  }
}

// Not awaited: summing up a long history may take longer than a cycle.
function top() {
  plot.offer(now.status.history.on);
  if (now.status.history.on) tops.refresh();
  else tops.off("History is off: history.path is empty.");
}

function showLive() {
  failures = 0;
  last = new Date();
  byId("gone").hidden = true;
  document.body.classList.remove("gone");
  byId("link").className = "link good";
  setText(byId("link"), "live");
}

function showFailure(error) {
  failures += 1;
  const since = last ? ` since ${time(last)}` : "";
  const words = error.isUnreachable ? `No answer from rmxd${since}: ${error.message}.` : `Error from rmxd: ${error.message}.`;
  // A single failure may be a coincidence.
  if (failures < 2 && last && error.isUnreachable) return;
  byId("gone").hidden = false;
  document.body.classList.toggle("gone", error.isUnreachable);
  setText(byId("gone-text"), `${words} Retrying.`);
  byId("link").className = "link bad";
  setText(byId("link"), error.isUnreachable ? "no answer" : "error");
}

function lock(error) {
  locked = true;
  detail.close();
  showProblem(byId("token-problem"), token.isSet() ? error.message : null);
  token.drop();
  byId("gone").hidden = true;
  byId("link").className = "link";
  setText(byId("link"), "locked");
  showView();
  byId("token-form").token.focus();
}

function unlock(event) {
  event.preventDefault();
  const field = byId("token-form").token;
  token.set(field.value);
  field.value = "";
  locked = false;
  setText(byId("link"), "connecting");
  showView();
  byId("content").focus();
  route();
  refreshNow();
}

start();
