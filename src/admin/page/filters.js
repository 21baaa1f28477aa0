// The search for decisions: a form whose values are in the URL, so that a search can be bookmarked and shared.
//
// On a phone it stands first on the page and is folded, else above the list.

import { byId, el, setText } from "./dom.js";
import * as gates from "./gates.js";
import { fromField, toField } from "./times.js";
import { IDENTITIES, OUTCOMES, REASONS, identity as named, outcome, readable } from "./words.js";

const FILTERS = ["sender", "rcpt", "client", "domain", "id", "queue", "verdict", "outcome", "reason", "tag", "identity", "since", "until"];
const TIMES = ["since", "until"];
const PHONE = matchMedia("(max-width: 760px)");

export function start() {
  const form = byId("filters");
  for (const reason of REASONS) {
    form.reason.append(el("option", { value: reason }, readable(reason)));
    form.tag.append(el("option", { value: reason }, readable(reason)));
  }
  for (const identity of IDENTITIES) form.identity.append(el("option", { value: identity }, named(identity)));
  for (const one of OUTCOMES) form.outcome.append(el("option", { value: one }, outcome(one)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  PHONE.addEventListener("change", place);
  place();
}

// The order of the elements is that of the keyboard, too.
function place() {
  const fold = byId("filters-fold");
  byId(PHONE.matches ? "filters-first" : "filters-last").append(fold);
  fold.open = !PHONE.matches;
}

// Puts the values into the URL.
export function apply() {
  const set = [...Object.entries(values()).filter(([, value]) => value), ...gates.parameters()];
  location.hash = set.length > 0 ? `traffic?${new URLSearchParams(set)}` : "traffic";
  count();
}

// As the API takes them; times are UTC there.
export function values() {
  const form = byId("filters");
  return Object.fromEntries(FILTERS.map((name) => {
    const value = form[name].value.trim();
    return [name, TIMES.includes(name) ? fromField(value) : value];
  }));
}

// Takes the values from the URL, and returns whether one has changed.
export function read(parameters) {
  const form = byId("filters");
  const before = JSON.stringify(values());
  for (const name of FILTERS) {
    const value = parameters.get(name) ?? "";
    form[name].value = TIMES.includes(name) ? toField(value) : value;
  }
  count();
  return before !== JSON.stringify(values());
}

export const some = () => Object.values(values()).some(Boolean);

function count() {
  const set = Object.values(values()).filter(Boolean).length;
  setText(byId("filters-set"), set > 0 ? `${set} set` : "");
}
