// Words for rows, times and states. Pure.

/** Said of an answer whose sentences were taken back. */
export const RESTARTED = "A row changed meanwhile: the answer is written anew";

/** A row's name for people: its table without the schema, and its key. */
export function rowName({ table, key }) {
  const values = key === null || typeof key !== "object" ? [key] : Object.values(key);
  return `${String(table).split(".").pop()} ${values.map(String).join(", ")}`;
}

/** What the service says, as a sentence. */
export function sentence(text) {
  const said = String(text ?? "").trim();
  if (!said) return "";
  return `${said[0].toUpperCase()}${said.slice(1)}${/[.!?…]$/.test(said) ? "" : "."}`;
}

/** A moment in the reader's own time zone; empty where it is unknown. `at` is ISO 8601. */
export function moment(at, { withDay = true, withSeconds = true, now = new Date() } = {}) {
  const date = dateOf(at);
  if (date === null) return "";
  const digits = { hour: "2-digit", minute: "2-digit", ...(withSeconds && { second: "2-digit" }) };
  const time = date.toLocaleTimeString(undefined, digits);
  if (!withDay || date.toDateString() === now.toDateString()) return time;
  return `${date.toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" })}, ${time}`;
}

function dateOf(at) {
  if (!at) return null;
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** How long after the commit a row was searchable. */
export function delay(committed, searchable) {
  const [from, until] = [dateOf(committed), dateOf(searchable)];
  if (from === null || until === null || until < from) return "";
  return `${duration((until - from) / 1000)} after the commit`;
}

/** Seconds in the largest unit that suits them. */
function duration(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** The badge: its level (a style) and its words. */
export function freshnessWords(freshness, connection) {
  if (connection === "away") return { level: "unknown", text: "Not connected, trying again" };
  if (!freshness) return { level: "unknown", text: "Connecting" };
  const lag = freshness.lag_seconds;
  if (typeof lag !== "number") return { level: "unknown", text: "Freshness unknown" };
  if (lag < 1) return { level: "fresh", text: "Less than 1 s behind" };
  return { level: lag <= 10 ? "fresh" : lag <= 120 ? "late" : "old", text: `${duration(lag)} behind` };
}

/** What changed under an answer, in one sentence. */
export function staleWords(citations) {
  const rows = new Map();
  for (const citation of citations) {
    if (citation.state !== "live") rows.set(citation.document_id, citation);
  }
  return [...rows.values()].map((row) => {
    const at = moment(row.at, { withDay: false });
    return `${rowName(row)} ${row.state === "gone" ? "is gone" : "has changed"}${at ? ` (${at})` : ""}`;
  });
}
