// Names from the API as text, and the formats of numbers and times.

// In the order of the stacked plot; style.css has a colour for each.
export const REASONS = [
  "no_such_domain", "no_mx", "null_mx", "mx_unresolvable", "mx_unroutable", "not_an_exchanger",
  "dmarc_reject", "dmarc_quarantine", "no_ptr", "ptr_not_confirmed", "invalid_domain", "malformed_header", "dns_error", "greylisted", "relaying_denied",
  "relay_unreachable", "relay_lost", "relay_refused", "bad_address", "bad_parameter", "too_big", "too_many_recipients",
  "mail_loop", "bare_newline", "too_slow",
];
export const OUTCOMES = ["delivered", "refused", "relay_refused", "relay_failed", "not_completed", "passed"];
export const IDENTITIES = ["helo", "ptr", "mail_from", "from", "reply_to"];

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const DATE_OF_YEAR = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const count = (number) => COUNT.format(number).replaceAll(",", "\u2009");
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export const time = (date) => TIME.format(date);
export const minute = (date) => MINUTE.format(date);
export const day = (date) => DAY.format(date);
// The date, with its year if that is another one.
export const dayOnly = (date) => (date.getFullYear() === new Date().getFullYear() ? DATE : DATE_OF_YEAR).format(date);

// Two or three significant digits: 0.042, 3.70, 250.
export function rate(number) {
  if (number === 0) return "0";
  if (number >= 100) return count(number);
  if (number >= 10) return number.toFixed(1);
  return number.toFixed(number > 0 && number < 0.1 ? 3 : 2);
}

export const percent = (share) => `${(share * 100).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

export function octets(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let rest = number;
  while (rest >= 1024 && at + 1 < units.length) {
    rest /= 1024;
    at += 1;
  }
  return `${at === 0 || rest >= 100 ? Math.round(rest) : rest.toFixed(1)} ${units[at]}`;
}

// Seconds in a suitable unit: "under 1 ms", "12 ms", "3.4 s", "2 h 5 min".
export function duration(seconds) {
  if (seconds < 0.001) return "under 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

// "no_such_domain" as "no such domain".
export const readable = (word) => word.replaceAll("_", " ").replace(/\b(mx|ptr|dns|spf|dkim|dmarc)\b/g, (name) => name.toUpperCase());

const NAMES = { helo: "HELO", ptr: "PTR", mail_from: "MAIL FROM", from: "From:", reply_to: "Reply-To:" };
// Empty if no rule decided.
export const identity = (word) => (word ? NAMES[word] ?? readable(word) : "");

const ENDS = { relay_refused: "refused by the relay", relay_failed: "the relay failed", not_completed: "not completed", refused: "refused" };
export const outcome = (word) => ENDS[word] ?? readable(word);

// "from.matches.not_an_exchanger" as "From: not an exchanger".
export function tag(text) {
  const [whose, , reason] = text.split(".");
  return reason ? `${identity(whose).replace(":", "")}: ${readable(reason)}` : readable(text);
}

// An address without its brackets; the null sender keeps them.
export const bare = (address) => (/^<.+>$/.test(address) ? address.slice(1, -1) : address);
