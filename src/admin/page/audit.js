// "Audit a domain": the result for each sending address, and the DNS records to add.

import { LONG_TIMEOUT, get } from "./api.js";
import { run } from "./check.js";
import { byId, copier, el, fill } from "./dom.js";
import { identity as named, readable } from "./words.js";

export function start() {
  byId("audit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

export function prefill(parameters) {
  const form = byId("audit-form");
  if (!parameters.has("domain")) return;
  form.domain.value = parameters.get("domain");
  form.egress.value = parameters.getAll("egress").join("\n");
  if (form.egress.value) submit();
}

async function submit() {
  const form = byId("audit-form");
  const egress = form.egress.value.split(/[\s,;]+/).filter(Boolean);
  const answer = await run(form, "querying DNS …", () => get("audit", { domain: form.domain.value.trim(), egress }, LONG_TIMEOUT));
  if (!answer) return;
  fill(byId("audit-result"), el("section.panel", { "aria-label": "Result" }, outcome(answer), addresses(answer), owner(answer), remarks(answer)), ...steps(answer));
  byId("audit-result").focus();
}

function outcome({ addresses: list, domain, exit }) {
  const condition = list.some((one) => one.unless_signed?.length > 0) ? ", if it is signed where DMARC needs that." : ".";
  const words = {
    0: ["accept", "accepted", (list.length === 1 ? "is accepted over this address" : `is accepted over all ${list.length} addresses`) + condition],
    1: ["reject", "lost", "would be lost over at least one address."],
    75: ["defer", "unknown", "can't be judged now because of a DNS error; try again later."],
  }[exit] ?? ["defer", "unknown", ""];
  return el("p.sentence", {}, el(`span.badge.${words[0]}`, {}, words[1]), ` Mail from ${domain} ${words[2]}`);
}

// What the owner of the domain asks for.
function owner({ dmarc }) {
  return dmarc && el("p.help", {}, `DMARC: ${dmarc.text}`);
}

function addresses({ addresses: list, dmarc }) {
  const policies = list[0]?.policies.map((one) => one.policy) ?? [];
  const heads = ["Address", "MX host", "PTR", "SPF", "DMARC", ...policies];
  return el("div.scroll", { tabindex: "0", role: "region", "aria-label": "Addresses" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...list.map((one) => el("tr", {},
      el("th", { scope: "row" }, el("code", {}, one.address)),
      el("td", {}, one.mx_hosts.length > 0 ? mark(true, one.mx_hosts.map((host) => host.host).join(", ")) : mark(false, "none")),
      el("td", {}, mark(confirmed(one.ptr), one.names.length > 0 ? `${one.names.join(", ")}${one.ptr === "confirmed" ? "" : ", not confirmed"}` : readable(one.ptr))),
      el("td", {}, mark({ pass: true, fail: false }[one.spf] ?? null, one.spf)),
      el("td", {}, ...fate(one.dmarc, dmarc?.in_force)),
      ...one.policies.map((policy) => el("td", {}, mark({ accept: true, reject: false }[policy.verdict] ?? null, verdict(policy)))))))));
}

// A DNS error is not a "no".
const confirmed = (ptr) => (ptr === "confirmed" ? true : ptr === "temperror" ? null : false);

// What DMARC makes of mail over one address.
function fate(word, request) {
  if (word === "unless_signed" && request !== "none") return symbol("temperror", "!", `${request} unless signed`);
  const text = { unless_signed: "none asked", none: "no record" }[word] ?? word;
  return word === "pass" ? mark(true, text) : word === "temperror" ? mark(null, text) : symbol("none", "–", text);
}

function verdict({ verdict: word, identity, reason, rung }) {
  const condition = reason?.startsWith("dmarc_") ? " unless signed" : "";
  if (reason) return `${word}: ${named(identity).replace(":", "")} ${readable(reason)}${condition}`;
  return rung ? `${word} by ${readable(rung)}` : word;
}

// `good` is null if the answer is unknown.
function mark(good, text) {
  return good === true ? symbol("pass", "✓", text) : good === false ? symbol("fail", "✗", text) : symbol("temperror", "?", text);
}

function symbol(kind, sign, text) {
  return [el(`span.result.${kind}`, { "aria-hidden": "true" }, sign), " ", text];
}

function remarks({ addresses: list, remarks: words }) {
  const rows = [
    ...list.flatMap((one) => one.lost.map((why) => ["fail", "✗", `Over ${one.address}: ${why}.`])),
    ...list.flatMap((one) => one.unknown.map((why) => ["temperror", "?", `Unknown for ${one.address}: ${why}.`])),
    ...list.flatMap((one) => (one.unless_signed ?? []).map((why) => ["temperror", "!", `Over ${one.address}, unless it is signed: ${why}.`])),
    ...words.map((remark) => ["temperror", "!", remark]),
  ];
  return rows.length > 0 && el("ul.remarks", {}, ...rows.map(([kind, symbol, text]) => el("li", {}, el(`span.result.${kind}`, { "aria-hidden": "true" }, symbol), " ", text)));
}

function steps({ domain, steps: all }) {
  const titles = { own: `In the zone of ${domain}`, provider: "Ask the provider of the address for" };
  return Object.entries(titles).map(([zone, title]) => {
    const some = all.filter((step) => step.zone === zone);
    const add = some.flatMap((step) => step.add);
    return some.length > 0 && el("section.panel", { "aria-label": title },
      el("div.head", {}, el("h2", {}, title), add.length > 0 && copier(add.join("\n") + "\n", "these records")),
      ...some.map((step) => el("div.step", {}, el("p", {}, step.why), lines("Remove", step.remove), lines("Add", step.add))));
  });
}

function lines(word, records) {
  return records.length > 0 && el("div.record", {}, el("span.soft", {}, word), el("pre.zone", { tabindex: "0" }, ...records.flatMap((record) => [record, document.createTextNode("\n")])));
}
