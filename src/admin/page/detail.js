// One decision with its evidence, in a dialog.

import { get } from "./api.js";
import { byId, el, fill, setText } from "./dom.js";
import * as permits from "./permits.js";
import { view } from "./record.js";
import { bare, plural } from "./words.js";

// The number of decisions opened so far, to discard the response for an earlier one.
let opened = 0;

export function start() {
  byId("decision-close").addEventListener("click", close);
}

export function close() {
  if (byId("decision").open) byId("decision").close();
}

// Opens the dialog for a decision; `closed` is called when the dialog closes.
export async function show(id, closed) {
  const dialog = byId("decision");
  const body = byId("decision-body");
  opened += 1;
  const turn = opened;
  setText(byId("decision-title"), `Decision ${id}`);
  fill(body, el("p.soft", { role: "status" }, "Loading …"));
  if (!dialog.open) {
    dialog.showModal();
    dialog.addEventListener("close", closed, { once: true });
  }
  try {
    const answer = await get(`decisions/${encodeURIComponent(id)}`);
    if (turn !== opened) return;
    const all = [answer, ...(answer.also ?? [])];
    fill(body, ...all.flatMap((one, at) => [all.length > 1 && el("p.soft", {}, `${at + 1} of ${plural(all.length, "decision")}`), ...view(one, at === 0 ? actions(all) : null)]));
  } catch (error) {
    // What another gate answers may have any shape.
    const text = error.status === undefined ? "The answer is no decision that this page can show." : error.message;
    if (turn === opened) fill(body, el("p.problem", { role: "alert" }, text));
  }
}

function actions(all) {
  const refused = all.find(permits.canBeLetIn);
  return el("p.actions.above", {}, refused && el("button.main", { type: "button", click: () => permits.ask(refused) }, "Let in …"), checkLink(all[0]));
}

function checkLink(one) {
  const first = (value) => (Array.isArray(value) ? value[0] : value)?.split(",")[0].trim();
  const question = { client: one.client, helo: one.helo, mail_from: bare(one.mail_from ?? ""), from: first(one.from), reply_to: first(one.reply_to) };
  const set = Object.entries(question).filter(([, value]) => value);
  return el("a.button", { href: `#check?${new URLSearchParams(set)}` }, "Check again now");
}
