// The page of one workspace: why it is as it is, its phases over time, its wakes, its logs.

import { at, read, send } from "./calls.js";
import { timeline, wakes } from "./plots.js";
import { ACTIONS, element, icon, pill, prepare, put } from "./table.js";
import * as words from "./words.js";

const LOOK_EVERY = 5000;
const LOG_LINES = 200;
// Characters of a log that the page keeps while it follows.
const LOG_MAX = 200000;

const place = document.getElementById("detail");
let open = null;

function panel(title, className, ...content) {
  const heading = element("h2", { textContent: title });
  heading.id = `h-${title.toLowerCase().replace(/\W+/g, "-")}`;
  const made = element("section", { className: `panel ${className}` }, heading, ...content);
  made.setAttribute("aria-labelledby", heading.id);
  return made;
}

class Page {
  constructor(id, { url, mayChange, act }) {
    this.id = id;
    this.stop = new AbortController();
    this.why = element("p", { className: "why" });
    this.signals = element("dl");
    this.timeline = element("div", { className: "timeline" });
    this.wakes = element("div", { className: "wakes" });
    this.journal = element("tbody");
    this.pill = element("span", { className: "pill" });
    this.next = element("p", { className: "until" });
    const link = element("a", { className: "button", target: "_blank", rel: "noopener noreferrer", href: url.replace("{id}", id) }, icon("open"), "Open");
    this.buttons = mayChange ? ACTIONS.map(action => {
      const button = element("button", { type: "button", className: action.act === "remove" ? "button danger" : "button" }, icon(action.act), action.title);
      button.dataset.act = action.act;
      button.addEventListener("click", () => act(action.act, this.row));
      return button;
    }) : [];
    const back = element("a", { href: "#/", className: "back" }, icon("back"), "All workspaces");
    this.title = element("h1", { textContent: id, tabIndex: -1 });
    const head = ["When", "Phase", "Reason", "Took"].map(text => Object.assign(element("th", { textContent: text }), { scope: "col" }));
    const table = element("table", { className: "journal" }, element("thead", {}, element("tr", {}, ...head)), this.journal);
    const frame = element("div", { className: "scroll", tabIndex: 0 }, table);
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Journal");
    this.log = element("pre", { tabIndex: 0 });
    this.log.setAttribute("role", "log");
    this.log.setAttribute("aria-label", "Logs");
    this.follow = element("button", { type: "button", className: "button", textContent: "Follow" });
    this.follow.setAttribute("aria-pressed", "false");
    this.follow.addEventListener("click", () => this.toggleFollow());
    this.logs = panel("Logs", "logs", element("div", { className: "buttons" }, this.follow), this.log);
    this.logs.hidden = !mayChange;
    place.replaceChildren(back,
      element("div", { className: "head" }, this.title, this.pill, this.next, element("div", { className: "buttons" }, link, ...this.buttons)),
      element("div", { className: "grid" }, panel("Why", "reason", this.why, this.signals),
        element("div", { className: "stack" }, panel("Phases", "", this.timeline), panel("Wake latency", "", this.wakes)),
        panel("Journal", "", frame), this.logs));
    this.look();
    if (mayChange) this.readLogs();
    this.timer = setInterval(() => document.hidden || this.look(), LOOK_EVERY);
  }

  close() {
    clearInterval(this.timer);
    this.stop.abort();
    this.following?.abort();
  }

  // The row of the table is what is newest.
  show(row) {
    const changed = this.row && (this.row.phase !== row?.phase || this.row.tier !== row?.tier);
    this.row = row;
    if (!row) return;
    pill(this.pill, row);
    for (const button of this.buttons) prepare(button, row);
    this.tick();
    if (changed) this.look();
  }

  tick() {
    if (!this.row) return;
    const { words: says, at, more } = words.next(this.row);
    put(this.next, [at ? `${says} ${words.countdown(at)}` : says, more].filter(Boolean).join(", "));
  }

  async look() {
    try {
      this.tell(await read(at(this.id, "/activity"), { signal: this.stop.signal }));
    } catch (problem) {
      if (problem.status === 404) this.gone();
      else if (problem.name !== "AbortError") put(this.why, problem.message);
    }
  }

  gone() {
    clearInterval(this.timer);
    place.replaceChildren(element("a", { href: "#/", className: "back" }, icon("back"), "All workspaces"),
      element("p", { className: "empty", textContent: `There is no workspace ${this.id} any more.` }));
  }

  tell({ why, signals, workspace, journal }) {
    put(this.why, why[0].toUpperCase() + why.slice(1));
    const date = text => text && words.moment(Date.parse(text));
    const report = signals.check_in;
    const facts = [
      ["Requests inside", signals.live_requests], ["Tunnels inside", signals.live_tunnels],
      ["Quiet tunnels", signals.quiet_tunnels], ["Held requests", signals.held_requests],
      ["Last visit ended", date(signals.last_request_ended_at) || "not since the start"],
      ["Its own report", report ? `${report.active ? "active" : "idle"}, ${date(report.at)}` : "none"],
      ["Report counts until", date(report?.expires_at)],
      ["Grace after its start", signals.initial_timeout_ends_at && `until ${date(signals.initial_timeout_ends_at)}`],
      ["Kept awake until", date(workspace.kept_until)],
      ["Frozen at", date(workspace.freeze_at)], ["Removed at", date(workspace.remove_at)],
      ["Monitoring", signals.monitoring ? "on" : "off"],
      ["Frozen by", workspace.policy.freeze_mode === "pause" ? "pausing" : "stopping"],
      ["Memory", words.bytes(workspace.usage?.memory_bytes)], ["CPU", words.percent(workspace.usage?.cpu_percent)],
      ["Memory saved", words.bytes(workspace.memory_saved_bytes)],
      ["Project", workspace.project?.name], ["Driver", workspace.driver], ["Known since", date(workspace.created_at)],
    ].filter(([, value]) => value != null && value !== "");
    const key = JSON.stringify(facts);
    if (this.signals.dataset.key !== key) {
      this.signals.dataset.key = key;
      this.signals.replaceChildren(...facts.map(([name, value]) =>
        element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: String(value) }))));
    }
    timeline(this.timeline, journal);
    const newest = JSON.stringify(journal[0] || null);
    if (this.newest === newest) return;
    this.newest = newest;
    wakes(this.wakes, journal);
    this.journal.replaceChildren(...journal.map(line => element("tr", {},
      element("td", { className: "when", textContent: date(line.at), title: line.at }),
      element("td", { textContent: line.tier ? `${line.phase} (${line.tier})` : line.phase }),
      element("td", { textContent: line.reason }), element("td", { className: "number", textContent: line.took_ms == null ? "" : words.took(line.took_ms) }))));
  }

  async readLogs() {
    try {
      const answer = await send("GET", at(this.id, `/logs?lines=${LOG_LINES}`), undefined, { signal: this.stop.signal });
      this.log.textContent = await answer.text() || "It has written nothing yet.";
      this.log.scrollTop = this.log.scrollHeight;
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.follow.hidden = true;
      put(this.log, problem.message);
    }
  }

  async toggleFollow() {
    const on = !this.following;
    this.follow.setAttribute("aria-pressed", on);
    if (!on) {
      this.following.abort();
      this.following = null;
      return;
    }
    const following = this.following = new AbortController();
    try {
      const answer = await send("GET", at(this.id, `/logs?follow=true&lines=${LOG_LINES}`), undefined, { signal: following.signal });
      this.log.textContent = "";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        // Who has scrolled up is reading.
        const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
        this.log.append(value);
        if (this.log.textContent.length > LOG_MAX) this.log.textContent = this.log.textContent.slice(-LOG_MAX / 2);
        if (atEnd) this.log.scrollTop = this.log.scrollHeight;
      }
    } catch (problem) {
      if (problem.name !== "AbortError") put(this.log, problem.message);
    }
    if (this.following === following) {
      this.following = null;
      this.follow.setAttribute("aria-pressed", "false");
    }
  }
}

export function show(id, about, row) {
  if (open?.id !== id) {
    close();
    open = new Page(id, about);
    open.title.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  open.show(row);
}

export function close() {
  open?.close();
  open = null;
  place.replaceChildren();
}

export const tick = () => open?.tick();
