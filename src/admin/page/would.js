// What monitor mode let through and enforcing would refuse, with the lines that exempt it.

import { get } from "./api.js";
import { byId, copier, el, fill } from "./dom.js";
import { status } from "./now.js";
import { swatch } from "./plot.js";
import { count, day, identity, plural, spoken } from "./words.js";

// What the API lists at most.
const MOST = 1000;

let shown = "";

export function start() {
  byId("would-span").addEventListener("change", () => refresh().catch(() => {}));
}

export async function refresh() {
  const place = byId("would-rows");
  if (status && !status.history.on) {
    off("History is off (history.path is empty), so nothing is known of what was let through.");
    return;
  }
  const span = byId("would-span").value;
  const answer = await get("would", { since: `${span}m`, limit: MOST });
  // Meanwhile somebody may have asked for another time.
  if (span !== byId("would-span").value) return;
  // A button that somebody is about to press stays.
  const text = JSON.stringify(answer);
  if (text === shown) return;
  shown = text;
  if (answer.senders.length === 0) {
    const enforces = status?.mode === "enforce";
    fill(place, el("p.panel.empty", {}, enforces ? "Nothing. The mode is enforce: what is refused is refused, and stands under Traffic." : "Nothing: enforcing would refuse nobody who wrote in this time."));
    return;
  }
  fill(place,
    el("section.panel", {}, el("p.lead", {}, el("strong", {}, plural(answer.would_be_refused, "message")), " would be refused", answer.reaches && `, of those since ${day(new Date(answer.reaches))}; rmxd history --would counts all`, "."), table(answer.senders)),
    answer.exempt.length > 0 && el("section.panel", { "aria-labelledby": "exempt-title" },
      el("div.head", {}, el("h2", { id: "exempt-title" }, answer.senders.length < MOST ? "All of them" : `The ${count(MOST)} largest`), copier(["[exempt]", ...answer.exempt].join("\n") + "\n", "all lines")),
      el("p.soft", {}, "For the configuration file, merged with the lists that it has. Read it first: spoofers and their clients are among them, as a rule."),
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
    el("td.why", {}, swatch({ kind: row.reason, soft: false }), spoken(row.reason), el("small", {}, `${identity(row.identity)} ${row.rule}, would ${row.action}`)),
    el("td.client", {}, el("span", {}, row.client), row.more_clients && el("small", {}, "and others")),
    el("td.num", { "data-label": "messages" }, count(row.taken)),
    el("td.line", {}, row.exempt ? el("div", {}, el("code", {}, row.exempt), copier(row.exempt, `the line for ${row.domain}`), el("small", {}, row.opens)) : el("span.soft", {}, row.more_clients ? "several clients, and none shown to be the domain's own" : "none")));
}
