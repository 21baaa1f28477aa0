// The gates of a fleet: whose decisions are listed, how each is called, and which of them didn't answer.
//
// Without a fleet there is no choice, and nothing asks for other gates.

import { byId, setText } from "./dom.js";
import { status } from "./now.js";

let thisOnly = false;
// Names that came with decisions, by the number of the gate: one that is gone is in no status.
const names = new Map();

// `apply` puts the choice into the URL.
export function start(apply) {
  byId("gates").addEventListener("change", () => {
    thisOnly = byId("gates").querySelector(":checked").value === "this";
    apply();
  });
}

const isFleet = () => Boolean(status?.cluster);

export const all = () => isFleet() && !thisOnly;

// For the API.
export const values = () => (all() ? { fleet: "true" } : {});

// For the URL.
export const parameters = () => (thisOnly ? [["gates", "this"]] : []);

// Takes the choice from the URL, and returns whether it has changed.
export function read(parameters) {
  const before = thisOnly;
  thisOnly = parameters.get("gates") === "this";
  for (const one of byId("gates").querySelectorAll("input")) one.checked = (one.value === "this") === thisOnly;
  return before !== thisOnly;
}

export function showChoice() {
  byId("gates").hidden = !isFleet();
}

// Says which gates are missing in the list.
export function showMissing(missing) {
  const texts = missing.map(({ node, hostname, why }) => `${hostname ? `${hostname} (node ${node})` : `node ${node}`}: ${why}`);
  byId("latest-missing").hidden = texts.length === 0;
  setText(byId("latest-missing"), texts.length > 0 ? `Without the decisions of ${texts.join("; ")}` : "");
}

export function remember(decisions) {
  for (const { node, hostname } of decisions) if (hostname) names.set(node, hostname);
}

// By its number; null without a fleet.
export function called(node) {
  if (!isFleet() || !node) return null;
  const other = status.cluster.others.find((one) => one.node === node);
  const name = node === status.cluster.node ? status.hostname : other?.hostname || names.get(node);
  return name ? `${name} (node ${node})` : `node ${node}`;
}
