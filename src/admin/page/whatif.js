// "What if": what another policy would have done with the decisions of the past, from the findings that were kept.

import { LONG_TIMEOUT, get } from "./api.js";
import { run } from "./check.js";
import { byId, copier, el, fill } from "./dom.js";
import { swatch } from "./plot.js";
import { fullWhen } from "./times.js";
import { IDENTITIES, count, identity as named, plural, readable } from "./words.js";
import { span } from "./would.js";

const ACTIONS = ["off", "tag", "greylist", "defer", "reject"];
const MOST = 200;
const WHY = {
  not_looked_up: "was not looked up",
  other_rungs: "was looked up by other rungs",
  exempt: "was exempt",
  header_not_seen: "the header didn't come, as the envelope was refused",
  body_not_seen: "the signatures were not verified",
  not_kept: "the history has only a part of the evidence",
};
const WOULD = { taken: "taken", greylisted: "greylisted", deferred: "deferred", refused: "refused", unknown: "can't be known" };

export function start() {
  byId("whatif-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("whatif-more").addEventListener("click", () => {
    const row = choice();
    byId("whatif-rules").append(row);
    row.querySelector("select").focus();
  });
  byId("whatif-rules").append(choice());
}

// A rule and its action. HELO matches may only be off or tag, "dmarc" is of From: matches only.
function choice() {
  const rules = IDENTITIES.flatMap((identity) => ["exists", "matches"].map((rule) => `${identity}.${rule}`));
  const rule = el("select", { name: "rule" }, ...rules.map((one) => el("option", { value: one, selected: one === "mail_from.matches" }, label(one))));
  const action = el("select", { name: "action" });
  const row = el("div.choice", {}, el("label", {}, "Rule ", rule), el("label", {}, "Action ", action),
    el("button.small", { type: "button", "aria-label": "Remove this rule", click: () => remove(row) }, "Remove"));
  const offer = () => {
    const allowed = rule.value === "helo.matches" ? ACTIONS.slice(0, 2) : rule.value === "from.matches" ? [...ACTIONS, "dmarc"] : ACTIONS;
    const before = action.value || "reject";
    fill(action, ...allowed.map((one) => el("option", { value: one, selected: one === (allowed.includes(before) ? before : "tag") }, one)));
  };
  rule.addEventListener("change", offer);
  offer();
  return row;
}

function label(rule) {
  const [identity, name] = rule.split(".");
  return `${named(identity)} ${name}`;
}

function remove(row) {
  const rows = byId("whatif-rules");
  if (rows.children.length === 1) return;
  row.remove();
  rows.lastElementChild.querySelector("select").focus();
}

// The lines of the configuration that the form makes; a rule counts once.
function lines() {
  const set = new Map();
  for (const row of byId("whatif-rules").children) {
    const [rule, action] = [...row.querySelectorAll("select")].map((one) => one.value);
    set.set(rule, action);
  }
  return [...set].map(([rule, action]) => `policy.${rule} = "${action}"`);
}

async function submit() {
  const form = byId("whatif-form");
  const config = lines();
  const answer = await run(form, "reading the history …", () => get("would", { config: config.join("\n"), since: span(), limit: MOST }, LONG_TIMEOUT));
  if (!answer) return;
  fill(byId("whatif-result"), ...result(answer, config));
  byId("whatif-result").focus();
}

function result(answer, config) {
  const strict = ["greylisted", "deferred", "refused"];
  const groups = [
    ["Taken, and would not be", (row) => row.before === "taken" && strict.includes(row.after)],
    ["Not taken, and would be", (row) => row.before !== "taken" && row.after === "taken"],
    ["Not taken either way, but otherwise", (row) => row.before !== "taken" && strict.includes(row.after)],
    ["Can't be known", (row) => row.after === "unknown"],
  ];
  const same = answer.decisions - answer.changed - answer.unknown;
  return [
    el("p.sentence", {}, `Of ${plural(answer.decisions, "decision")} `, answer.first && ["since ", fullWhen(answer.first), " "], el("strong", {}, `${count(answer.changed)} would be others`), `, ${count(same)} the same, ${count(answer.unknown)} can't be known.`,
      answer.reaches && [" Decisions before ", fullWhen(answer.reaches), " were not read; rmxd history --would --config reads all."]),
    el("div.code", {}, el("code.lines", {}, config.join("\n")), copier(config.join("\n") + "\n", "these lines")),
    ...groups.map(([title, fits]) => group(title, answer.senders.filter(fits), sum(answer, fits))),
    answer.more > 0 && el("p.soft", {}, `and ${plural(answer.more, "further row")} with fewer messages`),
    learn(answer.learn),
  ];
}

const sum = ({ totals }, fits) => totals.filter((row) => row.before !== row.after && fits(row)).reduce((all, row) => all + row.count, 0);

function group(title, rows, total) {
  if (rows.length === 0) return null;
  const heads = ["Sender", "Why", "Client", "Messages", "Example"];
  return el("section", { "aria-label": title, class: "changes" }, el("h3", {}, title, " ", el("span.soft", {}, count(total))), el("table.changes", {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el(head === "Messages" ? "th.num" : "th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("td.sender", {}, el("span", {}, row.domain), el("small", {}, `${WOULD[row.before]}, ${row.after === "unknown" ? "then unknown" : `would be ${WOULD[row.after]}`}${row.at_least ? " or more" : ""}`)),
      el("td.why", {}, why(row)),
      el("td.client", {}, el("span", {}, row.client), row.more_clients && el("small", {}, "and others")),
      el("td.num", { "data-label": "messages" }, count(row.count)),
      el("td.example", {}, row.example && el("a", { href: `#decision/${encodeURIComponent(row.example)}` }, row.example)))))));
}

function why({ identity, rule, reason, why: cause }) {
  const rules = identity ? `${named(identity)} ${rule ?? ""}` : "the whole message";
  if (cause) return [WHY[cause] ?? readable(cause), el("small", {}, rules)];
  return [reason && [swatch({ kind: reason, soft: false }), readable(reason)], el("small", {}, rules)];
}

// What would have to be looked up from now on.
function learn(rows) {
  const useful = rows.filter((row) => row.count > 0);
  return useful.length > 0 && el("section", { "aria-label": "What is missing", class: "changes" }, el("h3", {}, "What is missing"),
    el("ul.remarks", {}, ...useful.map((row) => el("li", {}, el("span.result.temperror", { "aria-hidden": "true" }, "?"), ` ${plural(row.count, "decision")}: ${row.identity ? `${named(row.identity)} ${row.rule ?? ""}` : "the whole message"} ${WHY[row.why] ?? readable(row.why)}.`,
      row.set && [" With ", el("code", {}, row.set), " the history learns it from now on."]))));
}
