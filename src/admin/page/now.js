// The head of the page and the tiles, from /api/v1/status.

import { byId, el, fill, setText, svg } from "./dom.js";
import { zone, zoneName } from "./times.js";
import { count, day, duration, octets, percent, plural, rate } from "./words.js";

// The last response.
export let status = null;

export function show(now) {
  status = now;
  setText(byId("host"), now.hostname);
  document.title = `rmxd on ${now.hostname}`;
  const isMonitor = now.mode === "monitor";
  const mode = byId("mode");
  mode.hidden = false;
  mode.className = isMonitor ? "badge defer" : "badge";
  setText(mode, now.mode);
  byId("monitor").hidden = !isMonitor;
  setText(byId("foot"), `rmxd ${now.version}, up for ${duration(Math.max(1, now.uptime_seconds))}. Times are local: ${zoneName()} (${zone()}).`);
  const tiles = [verdicts, connections, cache, dns, relay, history, configuration];
  if (now.certificate) tiles.push(certificate);
  else byId("tiles").querySelector('[data-name="Certificate"]')?.remove();
  for (const tile of tiles) put(tile(now));
}

// The nodes of a tile stay and only their texts change, so that nothing moves and a selection remains.
function put({ name, value, unit = "", notes, meter = null, state = "" }) {
  const tiles = byId("tiles");
  let tile = tiles.querySelector(`[data-name="${name}"]`);
  if (!tile) {
    tile = el("div.tile", { "data-name": name }, el("dt", {}, name), el("dd", {}, el("b"), el("span.unit")), el("dd.meter"), el("dd.notes"));
    tiles.append(tile);
  }
  tile.className = `tile ${state}`;
  setText(tile.querySelector("b"), value);
  setText(tile.querySelector(".unit"), unit);
  const bar = tile.querySelector(".meter");
  bar.hidden = meter === null;
  if (meter !== null) fill(bar, share(meter));
  const lines = notes.filter(Boolean);
  const place = tile.querySelector(".notes");
  if (place.children.length !== lines.length) fill(place, ...lines.map(() => el("span")));
  lines.forEach((line, at) => setText(place.children[at], line));
}

function share(part) {
  return svg("svg.share", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect.back", { width: 100, height: 4 }), svg("rect.fore", { width: Math.min(100, part * 100), height: 4 }));
}

function verdicts({ verdicts: all, verdicts_per_second: speed, mode }) {
  const would = mode === "monitor" ? "would be " : "";
  const slow = speed < 1;
  return {
    name: "Verdicts", value: rate(slow ? speed * 60 : speed), unit: slow ? "per minute" : "per second",
    notes: [`${count(all.accept)} accepted`, `${count(all.reject)} ${would}rejected`, `${count(all.defer)} ${would}deferred`],
  };
}

function connections({ connections: { open, limit, total } }) {
  return { name: "Connections", value: count(open), unit: `of ${count(limit)} open`, meter: open / limit, notes: [`${count(total)} since the start`] };
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
  return { name: "DNS", value: warns ? "! answers partly" : "✓ answers", state: warns ? "warn" : "good", notes: warns ? odd : servers.map((server) => server.address) };
}

function relay({ relay: { ok, detail, next_hop: place, connections: open } }) {
  return {
    name: "Relay", value: ok ? "✓ reachable" : "✗ unreachable", state: ok ? "good" : "bad",
    notes: [place, ok ? plural(open, "connection") : detail],
  };
}

function history({ history: { on, bytes, dropped } }) {
  if (!on) return { name: "History", value: "off", notes: ["history.path is empty"] };
  const lost = dropped > 0;
  return { name: "History", value: octets(bytes), unit: "on disk", state: lost ? "warn" : "", notes: [lost ? `${plural(dropped, "record")} dropped` : "no records dropped"] };
}

const moment = (text) => day(new Date(text));

// The last reload.
function configuration({ reload: { since, at, applied, detail } }) {
  const notes = [`since ${moment(since)}`, detail].filter(Boolean);
  if (applied) return { name: "Configuration", value: "✓ in effect", state: "good", notes };
  return { name: "Configuration", value: "✗ not reloaded", state: "bad", notes: [`tried ${moment(at)}`, detail, `in effect: that of ${moment(since)}`] };
}

// What is wrong is in `detail`: it ends soon or has ended, is for another name, or a new one can't be read.
function certificate({ certificate: { ok, detail, not_after: end, days_left: days } }) {
  const name = "Certificate";
  if (ok) return { name, value: `✓ ${plural(days, "day")}`, unit: "left", state: "good", notes: [`until ${moment(end)}`] };
  if (days === null) return { name, value: "✗ unreadable", state: "bad", notes: [detail] };
  if (days < 0) return { name, value: "✗ expired", state: "bad", notes: [detail] };
  const soon = /\bexpires in\b/.test(detail);
  return { name, value: soon ? `! ${plural(days, "day")}` : "! needs attention", unit: soon ? "left" : "", state: "warn", notes: [detail, !soon && `until ${moment(end)}`] };
}
