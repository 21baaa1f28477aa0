// Senders whose mail passed in monitor mode and would be refused in enforce mode, with the lines that exempt them.

import { get } from "./api.js";
import { byId, copier, el, fill } from "./dom.js";
import { status } from "./now.js";
import { swatch } from "./plot.js";
import { count, day, identity, plural, readable } from "./words.js";

// Maximum number of senders in a response of the API.
const MOST = 1000;

let shown = "";

export function start() {
  byId("would-span").addEventListener("change", () => refresh().catch(() => {}));
}

export async function refresh() {
  const place = byId("would-rows");
  if (status && !status.history.on) {
    off("History is off: history.path is empty, so there are no decisions to sum up.");
    return;
  }
  const span = byId("would-span").value;
  const answer = await get("would", { since: `${span}m`, limit: MOST });
  // The user may have chosen another time meanwhile.
  if (span !== byId("would-span").value) return;
  // Without changes the nodes stay, so that a button doesn't move under the pointer.
  const text = JSON.stringify(answer);
  if (text === shown) return;
  shown = text;
  if (answer.senders.length === 0) {
    const enforces = status?.mode === "enforce";
    fill(place, el("p.panel.empty", {}, enforces ? "None. In enforce mode messages are refused at once; the view Traffic lists them." : "None: enforce mode would have accepted every message of this time."));
    return;
  }
  fill(place,
    el("section.panel", {}, el("p.lead", {}, el("strong", {}, plural(answer.would_be_refused, "message")), " would be refused", answer.reaches && ` (only decisions since ${day(new Date(answer.reaches))} are counted; rmxd history --would counts all)`, "."), table(answer.senders)),
    answer.exempt.length > 0 && el("section.panel", { "aria-labelledby": "exempt-title" },
      el("div.head", {}, el("h2", { id: "exempt-title" }, answer.senders.length < MOST ? "All lines" : `Lines for the ${count(MOST)} largest senders`), copier(["[exempt]", ...answer.exempt].join("\n") + "\n", "all lines")),
      el("p.soft", {}, "Add these entries to the lists of your configuration file. Read them first: they usually include spoofed senders and their clients."),
      el("pre.zone", { tabindex: "0" }, ...["[exempt]", ...answer.exempt].flatMap((line) => [line, document.createTextNode("\n")]))));
}

export function off(why) {
  shown = "";
  fill(byId("would-rows"), el("p.panel.empty", {}, why));
}

function table(rows) {
  const heads = ["Sender", "Why", "Client", "Messages", "Line below [exempt]"];
  return el("table.would", {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el(head === "Messages" ? "th.num" : "th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map(line)));
}

function line(row) {
  return el("tr", {},
    el("td.sender", {}, el("a.word", { href: `#traffic?${new URLSearchParams({ domain: row.domain })}` }, row.domain)),
    el("td.why", {}, swatch({ kind: row.reason, soft: false }), readable(row.reason), el("small", {}, row.rule ? `${identity(row.identity)} ${row.rule}, would ${row.action}` : `would ${row.action}`)),
    el("td.client", {}, el("span", {}, row.client), row.more_clients && el("small", {}, "and others")),
    el("td.num", { "data-label": "messages" }, count(row.taken)),
    el("td.line", {}, row.exempt ? el("div", {}, el("code", {}, row.exempt), copier(row.exempt, `the line for ${row.domain}`), el("small", {}, row.opens)) : el("span.soft", {}, row.more_clients ? "none: several clients, and none of them confirmed for the domain" : "none")));
}
