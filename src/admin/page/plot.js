// The stacked plot: the number of verdicts of each kind per interval. It is SVG in CSS pixels, so that its text has the same
// size on every screen.
//
// The legend shows the values at the pointer or at the cursor, which the arrow keys move, and otherwise the totals. A table
// has the same data for users of a screen reader.

import { get } from "./api.js";
import { byId, el, fill, setText, set, svg } from "./dom.js";
import { fullWhen } from "./times.js";
import { REASONS, count, dayOnly, minute, readable, time } from "./words.js";

const HEIGHT = 220;
const LEFT = 46;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 24;
// Minimum width of a bar.
const NARROWEST = 3.4;
// Steps that one bar may stand for.
const MERGES = [1, 2, 3, 6, 12, 30];
// Minutes between the marks of the time axis.
const MARKS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 360, 720, 1440, 2880, 5760];
const DAY = 1440;
// Minutes that the API has in steps of ten seconds.
const FINE = 60;

const hidden = new Set();
let data = null;
let chosen = 60;
let picked = false;
let cursor = null;
let drawn = null;

export function start() {
  const place = byId("plot");
  new ResizeObserver(draw).observe(place);
  byId("plot-span").addEventListener("change", (event) => {
    choose(Number(event.target.value));
  });
  byId("plot-table").addEventListener("toggle", table);
  place.addEventListener("pointermove", (event) => hover(event));
  place.addEventListener("pointerdown", (event) => hover(event));
  place.addEventListener("pointerleave", () => move(null));
  place.addEventListener("keydown", keys);
}

// Minutes that are shown.
export const minutes = () => chosen;

// "last 24 h"
export const spanName = () => `last ${byId("plot-span").querySelector(`[value="${chosen}"]`).parentElement.textContent.trim()}`;

// Spans of more than an hour are those of the history.
export function offer(isOn) {
  for (const input of byId("plot-span").querySelectorAll("input")) input.disabled = !isOn && Number(input.value) > FINE;
}

function choose(span) {
  [chosen, picked, cursor] = [span, true, null];
  draw();
  table();
  dispatchEvent(new Event("span"));
}

export async function refresh() {
  const asked = chosen;
  const series = await get("series", { minutes: Math.max(FINE, asked) });
  // Another span may have been chosen meanwhile.
  if (Math.max(FINE, asked) === Math.max(FINE, chosen)) show(series);
}

// Whether the response changes every few seconds.
export const isFine = () => chosen <= FINE;

// Shows a response of /api/v1/series.
function show(series) {
  // The cursor stays at its time.
  const shift = data && cursor !== null && data.step === series.step_seconds * 1000 ? Math.round((Date.parse(series.start) - data.start) / series.step_seconds / 1000) : 0;
  data = {
    start: Date.parse(series.start),
    step: series.step_seconds * 1000,
    length: Math.max(0, ...series.series.map((one) => one.values.length)),
    reaches: series.reaches,
    series: series.series.map(named).sort((a, b) => a.rank - b.rank),
  };
  if (shift && drawn) cursor = Math.max(0, cursor - Math.round(shift / drawn.merged));
  if (!picked) chooseSpan();
  draw();
  table();
  const note = byId("plot-note");
  note.hidden = !data.reaches;
  if (data.reaches) fill(note, "Counted back to ", fullWhen(data.reaches), "; the rest of the history is being read.");
}

// An hour, or ten minutes if there are no older verdicts.
function chooseSpan() {
  const old = data.series.some((one) => one.values.slice(0, -600_000 / data.step).some((value) => value > 0));
  chosen = old ? 60 : 10;
  byId("plot-span").querySelector(`[value="${chosen}"]`).checked = true;
}

function named(one) {
  const reason = one.reason || null;
  const soft = one.mode === "monitor" && one.verdict !== "accept";
  const key = `${one.verdict}/${reason ?? ""}/${one.mode}`;
  const name = reason ? `${readable(reason)}${soft ? ", not enforced" : ""}` : readable(one.verdict);
  const rank = one.verdict === "accept" ? -1 : REASONS.indexOf(reason) + (soft ? 0.5 : 0);
  return { key, name, rank, kind: reason ?? one.verdict, soft, values: one.values };
}

// The sums of each series for each bar, the latest last.
function bars(width) {
  const steps = Math.min(data.length, (chosen * 60_000) / data.step);
  const merged = MERGES.find((merge) => width / (steps / merge) >= NARROWEST) ?? MERGES.at(-1);
  // Bars begin at round times, so that a bar keeps its value from one refresh to the next.
  const end = data.start + data.length * data.step;
  const first = Math.ceil((end - steps * data.step) / (data.step * merged)) * merged * data.step;
  const length = Math.max(0, Math.ceil((end - first) / (data.step * merged)));
  const at = Math.round((first - data.start) / data.step);
  const sum = (values, bar) => values.slice(Math.max(0, at + bar * merged), at + (bar + 1) * merged).reduce((a, b) => a + b, 0);
  const series = data.series.map((one) => {
    const sums = Array.from({ length }, (_, bar) => sum(one.values, bar));
    return { ...one, sums, total: sums.reduce((a, b) => a + b, 0) };
  });
  return { merged, first, length, lasts: merged * data.step, series: series.filter((one) => one.total > 0) };
}

function draw() {
  if (!data) return;
  const place = byId("plot");
  const width = Math.max(220, Math.floor(place.clientWidth));
  const inner = { width: width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
  drawn = { ...bars(inner.width), width, inner };
  const seen = drawn.series.filter((one) => !hidden.has(one.key));
  const highest = Math.max(0, ...Array.from({ length: drawn.length }, (_, bar) => seen.reduce((sum, one) => sum + one.sums[bar], 0)));
  const top = ceiling(highest);
  const x = (bar) => LEFT + (bar * inner.width) / Math.max(1, drawn.length);
  const y = (value) => TOP + inner.height * (1 - value / top);
  const node = place.querySelector("svg") ?? frame(place);
  set(node, { width, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-valuemax": Math.max(0, drawn.length - 1) });
  fill(node, axis(top, y, width), clock(x, inner), stack(seen, x, y));
  if (drawn.series.length === 0) {
    node.append(svg("text.empty", { x: LEFT + inner.width / 2, y: TOP + inner.height * 0.375 + 4, "text-anchor": "middle" }, "No verdicts in this time"));
  }
  node.append(svg("rect.cursor", { y: TOP, height: inner.height, width: Math.max(1, inner.width / Math.max(1, drawn.length)), visibility: "hidden" }));
  legend();
  read();
}

// The node stays while its content changes, so that the focus remains and a screen reader doesn't announce it again.
function frame(place) {
  const node = svg("svg", {
    height: HEIGHT, tabindex: 0, role: "slider", "aria-label": "Verdicts over time; arrow keys move through it", "aria-valuemin": 0,
  });
  fill(place, node);
  return node;
}

// One path for each series, without empty bars.
function stack(series, x, y) {
  const below = new Array(drawn.length).fill(0);
  const gap = x(1) - x(0) > 6 ? 1 : 0.4;
  return series.map((one) => {
    let path = "";
    for (const [bar, value] of one.sums.entries()) {
      if (value === 0) continue;
      const [low, high] = [y(below[bar]), y(below[bar] + value)];
      path += `M${x(bar).toFixed(1)} ${low.toFixed(1)}V${high.toFixed(1)}H${(x(bar + 1) - gap).toFixed(1)}V${low.toFixed(1)}Z`;
      below[bar] += value;
    }
    return svg(`path.bar.k-${one.kind}${one.soft ? ".soft-kind" : ""}`, { d: path });
  });
}

// The next round number, which few marks divide evenly.
function ceiling(value) {
  if (value <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((round) => round >= value && Number.isInteger(round)) ?? 10 * power;
}

function axis(top, y, width) {
  const marks = [4, 3, 5, 2].find((parts) => top % parts === 0) ?? 1;
  const lines = Array.from({ length: marks + 1 }, (_, mark) => (top * mark) / marks);
  return svg("g.axis", {}, ...lines.map((value) => [
    svg(value === 0 ? "line.base" : "line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, count(value)),
  ]));
}

function clock(x, inner) {
  const whole = (drawn.length * drawn.lasts) / 60_000;
  const apart = MARKS.find((mark) => (whole / mark) * 64 <= inner.width) ?? MARKS.at(-1);
  const group = svg("g.axis");
  for (const at of marks(apart, drawn.first, drawn.first + drawn.length * drawn.lasts)) {
    const place = x((at - drawn.first) / drawn.lasts);
    if (place < LEFT + 12 || place > drawn.width - 18) continue;
    const isMidnight = at.getHours() === 0 && at.getMinutes() === 0;
    group.append(
      svg("line.tick", { x1: place, x2: place, y1: TOP + inner.height, y2: TOP + inner.height + 4 }),
      svg("text", { x: place, y: HEIGHT - 6, "text-anchor": "middle" }, isMidnight && whole > FINE ? dayOnly(at) : minute(at)),
    );
  }
  return group;
}

// The round times between two, in local time: a zone may differ by half an hour, and a day may have 23 hours.
function marks(apart, from, to) {
  const at = new Date(from);
  at.setHours(0, 0, 0, 0);
  const all = [];
  while (at < to) {
    if (at >= from) all.push(new Date(at));
    if (apart < DAY) at.setMinutes(at.getMinutes() + apart);
    else at.setDate(at.getDate() + apart / DAY);
  }
  return all;
}

// The buttons stay as long as the series are the same, so that the focus remains.
function legend() {
  const place = byId("legend");
  const keys = drawn.series.map((one) => one.key).join();
  if (place.dataset.keys !== keys) {
    place.dataset.keys = keys;
    fill(place, drawn.series.map((one) => el("button.key", {
      type: "button", "aria-pressed": !hidden.has(one.key) ? "true" : "false", "data-key": one.key,
      click: (event) => {
        if (!hidden.delete(one.key)) hidden.add(one.key);
        event.currentTarget.setAttribute("aria-pressed", hidden.has(one.key) ? "false" : "true");
        draw();
      },
    }, swatch(one), el("span", {}, one.name), el("b"))));
  }
}

export function swatch({ kind, soft }) {
  return svg(`svg.swatch${soft ? ".soft-kind" : ""}`, { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" },
    svg(`rect.k-${kind}`, { width: 10, height: 10, rx: 2 }));
}

// Updates the numbers of the legend and the time above the plot.
function read() {
  const at = cursor === null || drawn.length === 0 ? null : Math.min(cursor, drawn.length - 1);
  for (const one of drawn.series) {
    const button = byId("legend").querySelector(`[data-key="${CSS.escape(one.key)}"] b`);
    if (button) setText(button, count(at === null ? one.total : one.sums[at]));
  }
  const from = drawn.first + (at ?? 0) * drawn.lasts;
  const range = at === null ? `${length(drawn.lasts)} per bar` : `${point(from)} to ${point(from + drawn.lasts)}`;
  setText(byId("plot-time"), range);
  const node = byId("plot").querySelector("svg");
  const mark = node?.querySelector(".cursor");
  if (!mark) return;
  mark.setAttribute("visibility", at === null ? "hidden" : "visible");
  mark.setAttribute("x", LEFT + ((at ?? 0) * drawn.inner.width) / Math.max(1, drawn.length));
  const parts = drawn.series.filter((one) => at !== null && one.sums[at] > 0).map((one) => `${one.name} ${count(one.sums[at])}`);
  set(node, {
    "aria-valuenow": at ?? Math.max(0, drawn.length - 1),
    "aria-valuetext": at === null ? "all bars" : `${range}: ${parts.join(", ") || "nothing"}`,
  });
}

const length = (span) => (span < 60_000 ? `${span / 1000} s` : span < 3_600_000 ? `${span / 60_000} min` : `${span / 3_600_000} h`);

// A time of the axis, with its date where the axis has several.
function point(milliseconds) {
  const at = new Date(milliseconds);
  return chosen <= FINE ? time(at) : chosen < DAY ? minute(at) : `${dayOnly(at)} ${minute(at)}`;
}

function move(to) {
  if (cursor === to || !drawn) return;
  cursor = to;
  read();
}

function hover(event) {
  if (!drawn) return;
  const across = event.clientX - byId("plot").getBoundingClientRect().left - LEFT;
  const bar = Math.floor((across / drawn.inner.width) * drawn.length);
  move(bar >= 0 && bar < drawn.length ? bar : null);
}

function keys(event) {
  if (!drawn) return;
  const last = drawn.length - 1;
  const at = cursor ?? last + 1;
  const to = {
    ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
    PageUp: at - 10, PageDown: at + 10, Home: 0, End: last, Escape: null,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  move(to === null ? null : Math.min(last, Math.max(0, to)));
}

// By minute, or by step where one is longer; the latest first. It is built only while it is open.
function table() {
  const details = byId("plot-table");
  if (!details.open || !data) return;
  const each = Math.max(1, 60_000 / data.step);
  const series = data.series.filter((one) => one.values.some((value) => value > 0));
  const rows = [];
  for (let at = Math.floor(data.length / each) - 1; at >= 0; at -= 1) {
    const sums = series.map((one) => one.values.slice(at * each, (at + 1) * each).reduce((a, b) => a + b, 0));
    if (sums.every((sum) => sum === 0)) continue;
    const from = new Date(data.start + at * each * data.step);
    const name = isFine() ? minute(from) : `${dayOnly(from)} ${minute(from)}`;
    rows.push(el("tr", {}, el("th", { scope: "row" }, name), ...sums.map((sum) => el("td.num", {}, sum === 0 ? "" : count(sum)))));
  }
  const heads = series.map((one) => el("th.num", { scope: "col" }, one.name));
  fill(details.querySelector(".scroll"), rows.length === 0 ? el("p.empty", {}, "No verdicts in this time") : el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, isFine() ? "Minute" : `From, ${length(data.step)} each`), ...heads)), el("tbody", {}, ...rows)));
}
