// One decision, of the history or of a check: the verdict in a sentence, the reply, facts about the message, and the evidence
// as a tree.

import { copier, el } from "./dom.js";
import * as gates from "./gates.js";
import { fullWhen } from "./times.js";
import { IDENTITIES, identity as named, duration, outcome, plural, readable, tag } from "./words.js";

const SYMBOL = { pass: "✓", fail: "✗", permerror: "✗", temperror: "?", none: "–" };
// t=y makes a request count one step weaker.
const WEAKER = { reject: "quarantine", quarantine: "none" };

export function badge(record) {
  const soft = isLetThrough(record);
  return el(`span.badge.${record.verdict}${soft ? ".soft-kind" : ""}`, { title: soft ? "monitor mode: not enforced" : null }, soft ? `would ${record.verdict}` : record.verdict);
}

export function isLetThrough(record) {
  return record.mode === "monitor" && record.verdict !== "accept";
}

// `actions` stand above the facts.
export function view(record, actions = null) {
  return [
    el("p.sentence", {}, badge(record), " ", ...[sentence(record)].flat()),
    record.reply && el("div.code", {}, el("code", {}, record.reply), copier(record.reply, "the reply")),
    record.help && el("p.help", {}, record.help),
    actions,
    facts(record),
    el("h2", {}, "Evidence"),
    tree(record),
  ];
}

function sentence(record) {
  if (record.verdict === "accept") {
    if (record.outcome?.startsWith("relay_")) return record.outcome === "relay_refused" ? "The relay refused the message." : "The relay failed.";
    if (!record.identity) return "No rule failed.";
    return [`${named(record.identity)} ${record.rule}`, record.rung ? ` by ${readable(record.rung)}` : ""];
  }
  const rule = record.rule && el("span.soft", {}, ` (rule ${record.rule})`);
  const whose = record.identity ? `${named(record.identity).replace(":", "")}: ` : "";
  return [`${whose}${readable(record.reason)}`, rule, isLetThrough(record) ? ". Not enforced in monitor mode." : ""];
}

function facts(record) {
  const names = Array.isArray(record.ptr) ? record.ptr.join(", ") : record.ptr;
  const rows = [
    ["Id", record.id], ["Time", record.at && fullWhen(record.at)],
    ["Client", record.client], ["Name", names && `${names} (PTR, confirmed)`], ["HELO claims", record.helo], ["MAIL FROM", record.mail_from],
    ["Recipient", record.rcpt], ["From:", list(record.from)], ["Reply-To:", list(record.reply_to)],
    ["Gate", gates.called(record.node)], ["Door", record.door !== "smtp" && record.door], ["Id at Postfix", record.queue], ["TLS", record.tls], ["Outcome", record.outcome && outcome(record.outcome)], ["Reply of the relay", record.relay_reply], ["Let in by", record.permit && `permit ${record.permit}${record.permit_until ? "" : ", until removed"}`], ["Permit ends", record.permit_until && fullWhen(record.permit_until)],
    ["Tagged", list(record.tags?.map(tag))],
    ["Duration", record.duration === undefined || record.duration === null ? null : `${duration(record.duration)}${record.dns_queries === undefined ? "" : `, ${plural(record.dns_queries, "DNS query", "DNS queries")}`}`],
  ];
  return el("dl.facts", {}, ...rows.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

const list = (value) => (Array.isArray(value) ? value.join(", ") : value);

// Identities, their rules, the DNS records.
function tree(record) {
  const findings = record.findings ?? [];
  const seen = new Set();
  return el("ul.tree", {}, ...IDENTITIES.map((identity) => {
    const own = findings.filter((finding) => finding.identity === identity);
    const note = record.notes?.[identity] ?? guess(own);
    if (note) return el("li.quiet", {}, el("span.name", {}, named(identity)), " ", note);
    return el("li", {}, el("span.name", {}, named(identity)), el("ul", {}, ...own.map((finding) => rule(finding, record, seen))));
  }));
}

// Records of older versions have no notes.
function guess(own) {
  if (own.length === 0) return "not checked";
  return own.every((finding) => !finding.decides && finding.result === "none" && finding.evidence.length === 0) ? "not given" : null;
}

function rule(finding, record, seen) {
  const why = finding.rung ?? finding.reason;
  const hasDecides = record.findings.some((one) => one.decides !== undefined);
  const decides = hasDecides ? finding.decides === true : record.verdict !== "accept" && finding.identity === record.identity && finding.rule === record.rule && finding.result !== "pass";
  return el(`li${decides ? ".decides" : ""}`, {},
    el(`span.result.${finding.result}`, { "aria-hidden": "true" }, SYMBOL[finding.result] ?? "·"), " ",
    el("span", {}, `${finding.rule} of `, el("code", {}, finding.subject || finding.domain), `: ${finding.result}${why ? ` (${readable(why)})` : ""} `),
    el("span.soft", {}, `[${finding.action}]`),
    decides && el("strong.mark", {}, "decides"),
    below(finding, seen));
}

// What the result rests on: entry, SPF, DKIM and DMARC, then the DNS records.
function below(finding, seen) {
  const rows = [...notes(finding), ...once(finding.evidence).map((evidence) => answer(evidence, seen))];
  return rows.length > 0 && el("ul", {}, ...rows);
}

function notes({ entry, spf, dkim, dmarc }) {
  return [
    entry && el("li.note", {}, "rule of ", el("code", {}, entry)),
    spf && note(spf.result, `SPF ${spf.result} (${named(spf.identity)} `, el("code", {}, spf.domain), ")"),
    ...(dkim ?? []).map(signature),
    ...(dmarc ? [owner(dmarc), dmarc.indirect && el("li.note", {}, `came indirectly: ${dmarc.indirect}`)] : []),
  ].filter(Boolean);
}

function signature({ result, domain, selector, aligned }) {
  return note(result, `DKIM ${result} (`, el("code", {}, `d=${domain}`), " ", el("code", {}, `s=${selector}`), aligned ? ", aligned)" : ", not aligned)");
}

function owner({ result, request, testing, record_at: at, organization }) {
  const words = ["DMARC ", result ?? "not evaluated"];
  if (!request) {
    const why = { none: "no record", permerror: "the record can't be read", temperror: "the record can't be looked up now" }[result] ?? "no record";
    return note(result, ...words, `: ${why}`);
  }
  const asks = request === "none" ? " asks for nothing" : ` asks for ${request}`;
  const weaker = testing && request !== "none" ? `, which its test mode (t=y) weakens to ${WEAKER[request] === "none" ? "nothing" : WEAKER[request]}` : "";
  return note(result, ...words, ": ", el("code", {}, `_dmarc.${at}`), asks, weaker, organization && ["; organisation ", el("code", {}, organization)]);
}

function note(result, ...children) {
  return el("li.note", {}, el(`span.result.${result ?? "none"}`, { "aria-hidden": "true" }, SYMBOL[result] ?? "–"), " ", ...children);
}

function once(evidence) {
  const keys = new Set();
  return evidence.filter(({ question, answer: text }) => !keys.has(`${question} ${text}`) && keys.add(`${question} ${text}`));
}

function answer({ question, answer: text, freshness, ttl_left: left, age, took }, seen) {
  const key = `${question} ${text}`;
  const known = {
    fresh: `queried now, TTL ${duration(left)}, took ${duration(took)}`,
    cached: `cached ${duration(age)} ago, TTL ${duration(left)} left`,
    stale: `stale, ${duration(age)} old`,
  }[freshness] ?? freshness;
  const again = seen.has(key);
  seen.add(key);
  return el("li.answer", {}, el("code.question", {}, question), " ", el("code", {}, text), " ", el("span.soft", {}, again ? "as above" : known));
}
