// How the daemon is now: the head of the page and the row of tiles, from /api/v1/status.

import { byId, el, fill, say, svg } from "./dom.js";
import { count, lasting, octets, percent, plural, rate } from "./words.js";

// What was said last.
export let status = null;

export function show(now) {
  status = now;
  say(byId("host"), now.hostname);
  document.title = `rmxd on ${now.hostname}`;
  const monitors = now.mode === "monitor";
  const mode = byId("mode");
  mode.hidden = false;
  mode.className = monitors ? "badge defer" : "badge";
  say(mode, now.mode);
  byId("monitor").hidden = !monitors;
  say(byId("foot"), `rmxd ${now.version}, up for ${lasting(Math.max(1, now.uptime_seconds))}`);
  for (const tile of [verdicts, connections, cache, dns, relay, history]) put(tile(now));
}

// Tiles stay and their texts change: nothing jumps, and who selects a text keeps it.
function put({ name, value, unit = "", notes, meter = null, state = "" }) {
  const tiles = byId("tiles");
  let tile = tiles.querySelector(`[data-name="${name}"]`);
  if (!tile) {
    tile = el("div.tile", { "data-name": name }, el("dt", {}, name), el("dd", {}, el("b"), el("span.unit")), el("dd.meter"), el("dd.notes"));
    tiles.append(tile);
  }
  tile.className = `tile ${state}`;
  say(tile.querySelector("b"), value);
  say(tile.querySelector(".unit"), unit);
  const bar = tile.querySelector(".meter");
  bar.hidden = meter === null;
  if (meter !== null) fill(bar, share(meter));
  const lines = notes.filter(Boolean);
  const place = tile.querySelector(".notes");
  if (place.children.length !== lines.length) fill(place, ...lines.map(() => el("span")));
  lines.forEach((line, at) => say(place.children[at], line));
}

function share(part) {
  return svg("svg.share", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect.back", { width: 100, height: 4 }), svg("rect.fore", { width: Math.min(100, part * 100), height: 4 }));
}

function verdicts({ verdicts: all, verdicts_per_second: speed, mode }) {
  const would = mode === "monitor" ? "would be " : "";
  const slow = speed < 1;
  return {
    name: "Verdicts", value: rate(slow ? speed * 60 : speed), unit: slow ? "a minute" : "a second",
    notes: [`${count(all.accept)} accepted`, `${count(all.reject)} ${would}rejected`, `${count(all.defer)} ${would}deferred`],
  };
}

function connections({ connections: { open, limit, total } }) {
  return { name: "Connections", value: count(open), unit: `of ${count(limit)} open`, meter: open / limit, notes: [`${count(total)} so far`] };
}

function cache({ cache: { entries, bytes, limit_bytes: limit, hit_rate: hits } }) {
  return {
    name: "DNS cache", value: hits === null || hits === undefined ? "–" : percent(hits), unit: "hits", meter: bytes / limit,
    notes: [plural(entries, "entry", "entries"), `${octets(bytes)} of ${octets(limit)}`],
  };
}

function dns({ dns: { ok, detail, servers } }) {
  const odd = servers.filter((server) => !server.ok).map((server) => `${server.address} ${server.detail}`);
  if (!ok) return { name: "DNS", value: "✗ no answer", state: "bad", notes: [detail] };
  const warns = odd.length > 0;
  return { name: "DNS", value: warns ? "! answers, but" : "✓ answers", state: warns ? "warn" : "good", notes: warns ? odd : servers.map((server) => server.address) };
}

function relay({ relay: { ok, detail, next_hop: place, connections: open } }) {
  return {
    name: "Relay", value: ok ? "✓ reachable" : "✗ not reached", state: ok ? "good" : "bad",
    notes: [place, ok ? plural(open, "connection") : detail],
  };
}

function history({ history: { on, bytes, dropped } }) {
  if (!on) return { name: "History", value: "off", notes: ["history.path is empty"] };
  const lost = dropped > 0;
  return { name: "History", value: octets(bytes), unit: "kept", state: lost ? "warn" : "", notes: [lost ? `${plural(dropped, "record")} dropped` : "nothing dropped"] };
}
