// Times as people read them: local, with the zone named once, and UTC where it is pointed at.

import { el } from "./dom.js";
import { dayOnly, time } from "./words.js";

// The local zone, such as "CET" or "GMT+1".
export function zone(at = new Date()) {
  const parts = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts(at);
  return parts.find((part) => part.type === "timeZoneName")?.value ?? "local time";
}

export const zoneName = () => Intl.DateTimeFormat().resolvedOptions().timeZone ?? zone();

export function utc(at) {
  return at.toISOString().replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");
}

const sameDay = (one, other) => one.toDateString() === other.toDateString();

// A time; of another day than today with its date.
export function when(iso) {
  const at = new Date(iso);
  const date = sameDay(at, new Date()) ? null : el("span.date", {}, dayOnly(at), " ");
  return el("time", { datetime: iso, title: utc(at) }, date, time(at));
}

// The same with date and zone, for a place that stands alone.
export function fullWhen(iso) {
  const at = new Date(iso);
  return el("time", { datetime: iso, title: utc(at) }, `${dayOnly(at)} ${time(at)} ${zone(at)}`);
}

// For <input type="datetime-local">, and back.
export function toField(text) {
  const ago = /^(\d+)([mhd])$/.exec(text);
  const at = ago ? new Date(Date.now() - ago[1] * { m: 60_000, h: 3_600_000, d: 86_400_000 }[ago[2]]) : new Date(text);
  if (!text || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

export function fromField(value) {
  const at = new Date(value);
  return value && !Number.isNaN(at.getTime()) ? at.toISOString().replace(".000", "") : "";
}
