// The domains and clients that are refused most, in the time that the plot shows. A click filters the latest decisions.

import { get } from "./api.js";
import { byId, el, fill, setText, svg } from "./dom.js";
import { minutes, spanName, swatch } from "./plot.js";
import { fullWhen } from "./times.js";
import { count, readable } from "./words.js";

let running = false;

// An error is shown at these tables only: the daemon may still be reachable.
export async function refresh() {
  if (running) return;
  running = true;
  const asked = minutes();
  try {
    const answer = await get("top", { minutes: asked });
    if (asked === minutes()) show(answer);
  } catch (error) {
    for (const place of places()) setText(place, `unknown: ${error.message}`);
  }
  running = false;
  // Another time was chosen meanwhile.
  if (asked !== minutes()) await refresh();
}

function show({ domains, clients, reaches }) {
  // `reaches` is set as long as not all of the time is read.
  for (const place of places()) {
    if (reaches) fill(place, "since ", fullWhen(reaches));
    else setText(place, spanName());
  }
  list(byId("top-domains"), domains, (row) => [
    link({ domain: row.domain }, row.domain || "(none)"),
    el("span.why", {}, swatch({ kind: row.reason, soft: false }), readable(row.reason ?? "")),
  ]);
  list(byId("top-clients"), clients, (row) => [link({ client: row.client }, row.client)]);
}

const places = () => document.querySelectorAll(".since");

export function off(why) {
  for (const id of ["top-domains", "top-clients"]) fill(byId(id), el("p.empty", {}, why));
}

function list(place, rows, cells) {
  if (rows.length === 0) {
    fill(place, el("p.empty", {}, "No message was refused."));
    return;
  }
  const most = Math.max(...rows.map((row) => row.count));
  const focused = place.contains(document.activeElement) ? document.activeElement.hash : null;
  fill(place, el("ol.tops", {}, ...rows.map((row) => el("li", {},
    svg("svg.share", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect.fore", { width: (100 * row.count) / most, height: 4 })),
    ...cells(row), el("b.num", {}, count(row.count))))));
  if (focused) [...place.querySelectorAll("a")].find((one) => one.hash === focused)?.focus({ preventScroll: true });
}

function link(filter, text) {
  return el("a.word", { href: `#traffic?${new URLSearchParams(filter)}`, title: "Show the decisions" }, text);
}
