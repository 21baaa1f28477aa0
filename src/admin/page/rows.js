// One decision as a row of the list.

import { el } from "./dom.js";
import { canBeLetIn } from "./permits.js";
import { badge } from "./record.js";
import { when, zone } from "./times.js";
import { bare, identity as named, outcome, readable, tag } from "./words.js";

// A transaction may have several decisions, one for each recipient.
export const key = (one) => `${one.id} ${one.at} ${one.rcpt}`;

export function table() {
  const heads = [`Time (${zone()})`, "Verdict", "Why", "Sender", "Client", "Recipient and outcome", ""];
  const body = el("tbody");
  return [body, el("table.decisions", {}, el("thead", {}, el("tr", {}, ...heads.map((name) => (name ? el("th", { scope: "col" }, name) : el("td"))))), body)];
}

export function line(one, isFresh, letIn) {
  const from = Array.isArray(one.from) ? one.from.join(", ") : one.from;
  const forged = from && from !== bare(one.mail_from ?? "");
  return el(`tr${isFresh ? ".fresh" : ""}`, { "data-key": key(one) },
    el("td.time", {}, el("a", { href: `#decision/${encodeURIComponent(one.id)}` }, when(one.at), el("span.unseen", {}, `, decision ${one.id}`)), gate(one)),
    el("td.verdict", {}, badge(one)),
    el("td.why", {}, why(one), ...(one.tags ?? []).map((text) => el("small.tag", { title: text }, `tagged ${tag(text)}`))),
    el("td.sender", {}, el("span", {}, bare(one.mail_from || "–")), forged && el("small", {}, `From: ${from}`)),
    el("td.client", {}, el("span", {}, one.client), name(one)),
    el("td.rcpt", {}, el("span", {}, bare(one.rcpt || "–")), end(one)),
    el("td.act", {}, canBeLetIn(one) && el("button.small", { type: "button", "aria-label": `Let in mail like decision ${one.id}`, click: () => letIn(one) }, "Let in")));
}

// In a list of several gates.
function gate({ node, hostname }) {
  return hostname !== undefined && el("small.gate", { title: `node ${node}` }, hostname || `node ${node}`);
}

function why(one) {
  const text = one.reason ? readable(one.reason) : one.rung ? `by ${readable(one.rung)}` : "";
  const permit = one.permit && el("small.permit", {}, "let in by ", el("a", { href: "#permits" }, `permit ${one.permit}`));
  return [text && el("span", {}, text), one.identity && el("small", {}, named(one.identity)), permit];
}

// A name that DNS confirms for the address is a name. What the client says in HELO is a claim, and is shown as one.
function name(one) {
  const confirmed = Array.isArray(one.ptr) ? one.ptr[0] : one.ptr;
  if (confirmed) return el("small.name", { title: "PTR name, confirmed by its address record" }, confirmed);
  return one.helo && el("small.claim", { title: "No confirmed PTR name. The HELO name is what the client says, unverified." }, `HELO claims “${one.helo}”`);
}

// What became of it, with the relay's reply where there is one.
function end(one) {
  if (!one.outcome) return null;
  const bad = one.outcome.startsWith("relay_");
  const reply = bad || one.outcome === "refused" ? one.relay_reply : null;
  return el(`small.outcome${bad ? ".bad" : ""}`, {}, outcome(one.outcome), reply && [": ", el("span.reply", {}, reply)]);
}
