// Senders whose mail passed in monitor mode and would be refused in enforce mode. Those that are chosen become one block of
// lines for the configuration.

import { get } from "./api.js";
import { byId, copier, el, fill } from "./dom.js";
import { status } from "./now.js";
import { swatch } from "./plot.js";
import { fullWhen } from "./times.js";
import { count, identity, plural, readable } from "./words.js";

// Maximum number of senders in a response of the API.
const MOST = 1000;
// Rows on a page.
const PAGE = 50;

let shown = "";
let answer = null;
let page = 0;
// The lines of the chosen rows, each `key = ["value"]`.
const chosen = new Set();

export function start() {
  byId("would-span").addEventListener("change", () => {
    page = 0;
    refresh().catch(() => {});
  });
}

export const span = () => `${byId("would-span").value}m`;

export async function refresh() {
  if (status && !status.history.on) {
    off("History is off: history.path is empty, so there are no decisions to sum up.");
    return;
  }
  const asked = span();
  const now = await get("would", { since: asked, limit: MOST });
  // The user may have chosen another time meanwhile.
  if (asked !== span()) return;
  // Without changes the nodes stay, so that a button doesn't move under the pointer.
  const text = JSON.stringify(now);
  if (text === shown) return;
  [shown, answer] = [text, now];
  const known = new Set(now.senders.map((row) => row.exempt));
  for (const line of chosen) if (!known.has(line)) chosen.delete(line);
  draw();
}

export function off(why) {
  shown = "";
  fill(byId("would-rows"), el("p.panel.empty", {}, why));
}

function draw() {
  const place = byId("would-rows");
  if (answer.senders.length === 0) {
    const enforces = status?.mode === "enforce";
    fill(place, el("p.panel.empty", {}, enforces ? "None. In enforce mode messages are refused at once; the view Traffic lists them." : "None: enforce mode would have accepted every message of this time."));
    return;
  }
  const pages = Math.ceil(answer.senders.length / PAGE);
  page = Math.min(page, pages - 1);
  const rows = answer.senders.slice(page * PAGE, (page + 1) * PAGE);
  const focus = document.activeElement?.id;
  fill(place,
    el("section.panel", { id: "would-block", "aria-labelledby": "exempt-title" }),
    el("section.panel", { "aria-labelledby": "would-sum" },
      el("div.head", {}, el("h2", { id: "would-sum" }, plural(answer.would_be_refused, "message"), " would be refused"), answer.reaches && el("span.soft", {}, "counted since ", fullWhen(answer.reaches), "; rmxd history --would counts all")),
      table(rows), pages > 1 && pager(pages)));
  block();
  if (focus) byId(focus)?.focus({ preventScroll: true });
}

function pager(pages) {
  const step = (by) => () => {
    page += by;
    draw();
    byId("would-rows").querySelector("#would-sum").scrollIntoView({ block: "nearest" });
  };
  const first = page * PAGE + 1;
  const last = Math.min(answer.senders.length, first + PAGE - 1);
  return el("nav.actions", { "aria-label": "Pages" },
    el("button", { type: "button", id: "would-before", disabled: page === 0, click: step(-1) }, "Previous"),
    el("button", { type: "button", id: "would-after", disabled: page + 1 === pages, click: step(1) }, "Next"),
    el("span.soft", { id: "would-page", role: "status" }, `${first} to ${last} of ${answer.senders.length}${answer.senders.length === MOST ? " or more" : ""} senders`));
}

function table(rows) {
  const heads = ["Sender", "Why", "Client", "Messages", "Entry of [exempt]"];
  return el("table.would", {},
    el("thead", {}, el("tr", {}, el("td"), ...heads.map((head) => el(head === "Messages" ? "th.num" : "th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map(line)));
}

function line(row, at) {
  const pick = row.exempt && el("input", { type: "checkbox", id: `would-pick-${at}`, "aria-label": `Choose ${row.domain}`, checked: chosen.has(row.exempt), change: (event) => choose(row.exempt, event.target.checked) });
  return el("tr", {},
    el("td.pick-one", {}, pick),
    el("td.sender", {}, el("a.word", { href: `#traffic?${new URLSearchParams({ domain: row.domain })}` }, row.domain)),
    el("td.why", {}, swatch({ kind: row.reason, soft: false }), readable(row.reason), el("small", {}, row.rule ? `${identity(row.identity)} ${row.rule}, would ${row.action}` : `would ${row.action}`)),
    el("td.client", {}, el("span", {}, row.client), row.more_clients && el("small", {}, "and others")),
    el("td.num", { "data-label": "messages" }, count(row.taken)),
    el("td.line", {}, row.exempt ? [el("code", {}, row.exempt), el("small", {}, row.opens)] : el("span.soft", {}, row.more_clients ? "none: several clients, and none of them confirmed for the domain" : "none")));
}

function choose(line, on) {
  if (on) chosen.add(line);
  else chosen.delete(line);
  for (const box of document.querySelectorAll("#would-rows tbody input")) {
    const own = box.closest("tr").querySelector(".line code")?.textContent;
    if (own === line) box.checked = on;
  }
  block();
}

// One table with one array for each key, so that the block is valid as a whole.
export function exemptTable(lines) {
  const arrays = new Map();
  for (const line of lines) {
    const [, name, value] = /^(\w+) = \[(.*)\]$/.exec(line) ?? [];
    if (name) arrays.set(name, (arrays.get(name) ?? new Set()).add(value));
  }
  const names = [...arrays.keys()].sort();
  return ["[exempt]", ...names.flatMap((name) => array(name, [...arrays.get(name)].sort()))];
}

// Few entries on one line, more below each other.
function array(name, entries) {
  return entries.length <= 4 ? [`${name} = [${entries.join(", ")}]`] : [`${name} = [`, ...entries.map((entry) => `    ${entry},`), "]"];
}

function block() {
  const place = byId("would-rows");
  const all = new Set(answer.senders.map((row) => row.exempt).filter(Boolean));
  const lines = chosen.size > 0 ? exemptTable(chosen) : [];
  const pick = (lines) => () => {
    chosen.clear();
    for (const line of lines) chosen.add(line);
    draw();
    byId("would-rows").querySelector("#would-all").focus({ preventScroll: true });
  };
  fill(place.querySelector("#would-block"),
    el("div.head", {}, el("h2", { id: "exempt-title" }, "Lines for the configuration"),
      el("span.soft", { role: "status" }, chosen.size > 0 ? `${plural(chosen.size, "entry", "entries")} chosen` : "none chosen"),
      el("span.group", {}, el("button.small", { type: "button", id: "would-all", click: pick(all) }, "Choose all"), el("button.small", { type: "button", disabled: chosen.size === 0, click: pick([]) }, "Choose none"), chosen.size > 0 && copier(lines.join("\n") + "\n", "the lines"))),
    el("p.soft", {}, chosen.size > 0 ? "Where the configuration has an [exempt] already, add these entries to its lists." : "Choose below the senders whose mail you want. Among all of them are usually spoofed ones."),
    chosen.size > 0 && el("pre.zone", { tabindex: "0", id: "would-lines" }, ...lines.flatMap((line) => [line, document.createTextNode("\n")])));
}
