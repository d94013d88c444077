// Numbers and times in words for people.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

// How far our clock is behind the gateway's, which tells the time in everything it sends.
let behind = 0;
export const setClock = now => { behind = now - Date.now() };
export const now = () => Date.now() + behind;

const two = number => String(number).padStart(2, "0");

// What is left, as a clock that runs down: 4:12, 1:02:07, 3 d 4 h.
export function countdown(at) {
  const left = Math.max(0, Math.ceil((at - now()) / SECOND));
  const seconds = left % 60, minutes = Math.floor(left / 60) % 60, hours = Math.floor(left / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

// The same for those who hear it.
export function spoken(milliseconds) {
  const parts = [["day", DAY], ["hour", HOUR], ["minute", MINUTE], ["second", SECOND]];
  let left = Math.max(0, milliseconds), words = [];
  for (const [name, size] of parts) {
    const count = Math.floor(left / size);
    left %= size;
    if (count) words.push(`${count} ${name}${count > 1 ? "s" : ""}`);
  }
  return words.slice(0, 2).join(" ") || "a moment";
}

export function ago(at) {
  const past = Math.max(0, now() - at);
  if (past < 5 * SECOND) return "just now";
  if (past < MINUTE) return `${Math.floor(past / SECOND)} s ago`;
  if (past < HOUR) return `${Math.floor(past / MINUTE)} min ago`;
  if (past < 2 * DAY) return `${Math.floor(past / HOUR)} h ago`;
  return `${Math.floor(past / DAY)} days ago`;
}

export function bytes(number) {
  if (number == null) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${number < 10 && unit > 1 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

export function took(milliseconds) {
  if (milliseconds == null) return "–";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10000 ? 1 : 0)} s`;
}

export const percent = share => share == null ? "" : `${share < 10 ? Math.round(share * 10) / 10 : Math.round(share)} %`;
export const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export function moment(at) {
  const date = new Date(at);
  return (Math.abs(now() - date) < 18 * HOUR ? clock : day).format(date);
}
export const hour = at => new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(at));

// Minutes as the API tells them, as people write them: 90s, 15m, 1h 30m.
export function duration(minutes) {
  if (minutes == null) return "";
  let left = Math.round(minutes * MINUTE);
  const parts = [["d", DAY], ["h", HOUR], ["m", MINUTE], ["s", SECOND], ["ms", 1]];
  const words = [];
  for (const [unit, size] of parts) {
    const count = Math.floor(left / size);
    left %= size;
    if (count) words.push(`${count}${unit}`);
  }
  return words.slice(0, 3).join(" ") || "0s";
}

// A phase and its tier, as the table says it.
export function phase(row) {
  switch (row.phase) {
    case "frozen": return row.tier === "paused" ? "Paused" : "Stopped";
    case "starting": return row.queue == null ? "Starting" : `Queued (${row.queue} before)`;
    default: return row.phase[0].toUpperCase() + row.phase.slice(1);
  }
}
export const isBusy = row => ["starting", "freezing", "removing"].includes(row.phase);

// Who is inside or waits, by kind; in the table there is little room.
const KINDS = [["requests", "request"], ["tunnels", "tunnel"], ["quiet", "quiet tunnel", "quiet"], ["held", "held request", "held"]];
export const live = row => KINDS.filter(([key]) => row[key]).map(([key, noun, short]) =>
  ({ key, count: row[key].toLocaleString("en"), short: short || many(row[key], noun).split(" ")[1], words: many(row[key], noun) }));
export const liveCount = row => (row.requests || 0) + (row.tunnels || 0) + (row.held || 0) + (row.quiet || 0) / 1000;

// What is next for it, as { words, at, more }: with `at` a clock runs down behind the words.
export function next(row) {
  if (row.phase === "running") return nextOfRunning(row);
  const more = row.remove_at ? `removed in ${countdown(row.remove_at)}` : "";
  switch (row.phase) {
    case "failed": return { words: "tries again when visited", more: row.failure || "" };
    case "frozen":
      if (row.held_off_until > now()) return { words: "wakes when opened", more: `stopped by an admin, ${countdown(row.held_off_until)}` };
      return { words: "wakes when visited", more };
    default: return { words: "", more };
  }
}

function nextOfRunning(row) {
  if (row.freeze_at) {
    const kept = row.kept_until > now() ? "kept awake until" : "at";
    return { words: row.transient ? "removed in" : "freezes in", at: row.freeze_at, more: `${kept} ${moment(row.freeze_at)}` };
  }
  const why = {
    inside: "while it is in use", report: "while it says that it is active",
    fixed: "a fixed upstream", unmonitored: "its monitoring is off", never: "its policy says so",
  };
  return { words: "stays awake", more: why[row.awake] || "" };
}
