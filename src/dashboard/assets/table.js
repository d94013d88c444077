// The table of all workspaces. Only the rows that are in view are in the page, however many there
// are; two rows without content stand for those above and below.

import * as words from "./words.js";

// Rows beyond the edge of the window, so that scrolling shows no gap.
const MARGIN = 8;

const PHASES = ["failed", "starting", "freezing", "removing", "running", "frozen"];
const LAST = Number.MAX_SAFE_INTEGER;
const ORDER = {
  id: row => row.id,
  phase: row => PHASES.indexOf(row.phase) + (row.tier === "paused" ? 0 : 0.5),
  live: row => -words.liveCount(row),
  active: row => row.awake === "inside" || row.awake === "report" ? -LAST : -(row.active || 0),
  next: row => row.freeze_at || row.kept_until || (row.awake ? LAST - 1 : row.remove_at || LAST),
  memory: row => -(row.memory ?? -1),
  cpu: row => -(row.cpu ?? -1),
  saved: row => -(row.saved ?? -1),
};

export const ACTIVITY = { visit: "a visit ended", report: "its own report", earlier: "before the last restart" };

// Writes what differs, and nothing else: most of a page stays as it is.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

export function element(name, properties = {}, ...content) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...content);
  return made;
}

export function pill(element, row) {
  const kind = row.phase === "frozen" ? row.tier || "stopped" : row.phase;
  if (element.dataset.phase !== kind) element.dataset.phase = kind;
  put(element, words.phase(row));
}

// What a button can do as things are.
export function prepare(button, row) {
  const action = ACTIONS.find(action => action.act === button.dataset.act);
  button.hidden = action.hidden?.(row) ?? false;
  button.disabled = action.disabled?.(row) ?? false;
  if (action.pressed) button.setAttribute("aria-pressed", action.pressed(row));
}

export class Table {
  rows = new Map();
  mayChange = false;
  url = "";
  #shown = [];
  #elements = new Map();
  #spare = [];
  #order = "id";
  #down = false;
  #phase = "";
  #text = "";
  #stale = true;
  #frame = 0;
  #painted = false;
  #above = element("tr", { className: "space" }, element("td", { colSpan: 9 }));
  #below = element("tr", { className: "space" }, element("td", { colSpan: 9 }));
  #act;

  // act(what, row): a button of a row was pressed.
  constructor(act) {
    this.#act = act;
    this.table = document.getElementById("table");
    this.body = document.getElementById("rows");
    this.template = document.getElementById("row").content.firstElementChild;
    for (const space of [this.#above, this.#below]) space.setAttribute("aria-hidden", "true");
    this.body.append(this.#above, this.#below);
    for (const head of this.table.querySelectorAll("[data-sort]")) {
      head.firstElementChild.addEventListener("click", () => this.sort(head.dataset.sort));
    }
    document.getElementById("order").addEventListener("change", event => this.sort(event.target.value, false));
    document.getElementById("find").addEventListener("input", event => {
      this.#text = event.target.value.trim().toLowerCase();
      this.refresh();
    });
    document.getElementById("phases").addEventListener("click", event => {
      const chip = event.target.closest("button");
      if (!chip) return;
      this.#phase = chip.dataset.phase;
      for (const other of chip.parentElement.children) other.setAttribute("aria-pressed", other === chip);
      this.refresh();
    });
    this.body.addEventListener("keydown", event => this.#move(event));
    this.body.addEventListener("click", event => {
      const button = event.target.closest("button[data-act]");
      if (button) this.#act(button.dataset.act, this.rows.get(button.closest("tr").dataset.id));
    });
    addEventListener("scroll", () => this.#soon(), { passive: true });
    addEventListener("resize", () => this.#soon());
  }

  take({ reset, rows, gone }) {
    if (reset) this.rows.clear();
    for (const id of gone) this.rows.delete(id);
    for (const row of rows) this.rows.set(row.id, row);
    this.refresh();
  }

  sort(by, toggle = true) {
    this.#down = toggle && this.#order === by && !this.#down;
    this.#order = by;
    for (const head of this.table.querySelectorAll("[data-sort]")) {
      if (head.dataset.sort !== by) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.#down ? "descending" : "ascending");
    }
    document.getElementById("order").value = by;
    this.refresh();
  }

  // Something is new, or other rows are wanted.
  refresh() {
    this.#stale = true;
    this.#soon();
  }

  // Time goes on: clocks run down.
  tick() {
    for (const [id, line] of this.#elements) this.#clocks(line, this.rows.get(id));
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.render();
    });
  }

  #matches(row) {
    if (this.#phase === "busy" ? !words.isBusy(row) : this.#phase && row.phase !== this.#phase) return false;
    return !this.#text || [row.id, row.project, row.driver].some(text => text?.toLowerCase().includes(this.#text));
  }

  #choose() {
    const key = ORDER[this.#order], sign = this.#down ? -1 : 1;
    const compare = (one, other) => one < other ? -1 : one > other ? 1 : 0;
    const keyed = [];
    for (const row of this.rows.values()) if (this.#matches(row)) keyed.push([key(row), row.id]);
    keyed.sort((one, other) => sign * compare(one[0], other[0]) || compare(one[1], other[1]));
    this.#shown = keyed.map(([, id]) => id);
    this.#stale = false;
    const empty = document.getElementById("empty");
    empty.hidden = this.#shown.length > 0;
    put(empty, this.rows.size ? "No workspace matches." : "There are no workspaces yet.");
    // The head is a row too.
    this.table.setAttribute("aria-rowcount", this.#shown.length + 1);
  }

  get #height() {
    return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")) || 52;
  }

  render() {
    if (document.getElementById("list").hidden) return;
    if (this.#stale) this.#choose();
    const height = this.#height, count = this.#shown.length;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(count, Math.floor(-top / height) - MARGIN));
    const last = Math.min(count, Math.ceil((innerHeight - top) / height) + MARGIN);
    const wanted = this.#shown.slice(first, Math.max(first, last));
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const keep = new Set(wanted);
    for (const [id, line] of this.#elements) {
      if (keep.has(id)) continue;
      this.#elements.delete(id);
      line.remove();
      this.#spare.push(line);
    }
    this.#space(this.#above, first * height);
    this.#space(this.#below, (count - first - wanted.length) * height);
    let before = this.#above;
    wanted.forEach((id, index) => {
      const line = this.#elements.get(id) || this.#line(id);
      if (before.nextSibling !== line) before.after(line);
      before = line;
      line.setAttribute("aria-rowindex", first + index + 2);
      this.#fill(line, this.rows.get(id));
    });
    if (wanted.length && !this.#painted) {
      this.#painted = true;
      performance.mark("rows");
    }
    // What moved in the page has lost it.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #space(line, height) {
    line.hidden = height === 0;
    line.firstElementChild.style.height = `${height}px`;
  }

  #line(id) {
    const line = this.#spare.pop() || this.#make();
    line.dataset.id = id;
    this.#elements.set(id, line);
    return line;
  }

  #make() {
    const line = this.template.cloneNode(true);
    const cell = name => line.querySelector(`.${name}`);
    line.parts = {
      name: cell("name"), project: cell("project"), url: cell("url"), pill: cell("pill"), live: cell("live"),
      active: cell("active"), next: cell("next"), memory: cell("memory"), cpu: cell("cpu"), saved: cell("saved"),
    };
    const actions = cell("actions");
    line.parts.open = element("a", { className: "icon", target: "_blank", rel: "noopener noreferrer", title: "Open" }, icon("open"));
    actions.append(line.parts.open);
    line.parts.buttons = this.mayChange ? ACTIONS.map(action => {
      const button = element("button", { type: "button", className: "icon", title: action.title }, icon(action.act));
      button.dataset.act = action.act;
      actions.append(button);
      return button;
    }) : [];
    return line;
  }

  #fill(line, row) {
    if (line.told === row) return this.#clocks(line, row);
    const { parts } = line;
    const other = line.told?.id !== row.id;
    line.told = row;
    if (other) {
      const url = this.url.replace("{id}", row.id);
      put(parts.name, row.id);
      put(parts.project, row.project || "");
      parts.name.href = `#/workspaces/${row.id}`;
      put(parts.url, url.replace(/^https?:\/\//, "").replace(/\/$/, ""));
      parts.url.href = parts.open.href = url;
      parts.url.setAttribute("aria-label", `Open ${row.id} at ${url}`);
      parts.open.setAttribute("aria-label", `Open ${row.id}`);
    }
    const { name } = parts;
    name.title = [row.project && `project ${row.project}`, row.driver].filter(Boolean).join(", ");
    pill(parts.pill, row);
    parts.pill.title = row.failure || `since ${words.moment(row.since)}`;
    const kinds = words.live(row), key = kinds.map(kind => kind.words).join();
    if (parts.live.dataset.key !== key) {
      parts.live.dataset.key = key;
      parts.live.replaceChildren(...kinds.map(kind => element("span", { className: `kind ${kind.key}`, title: kind.words },
        element("b", {}, kind.count), ` ${kind.short}`)));
      if (!kinds.length) parts.live.append(element("span", { className: "none" }, "none"));
    }
    put(parts.memory, words.bytes(row.memory) || "");
    put(parts.cpu, words.percent(row.cpu));
    put(parts.saved, words.bytes(row.saved));
    for (const button of parts.buttons) {
      button.setAttribute("aria-label", `${button.title}: ${row.id}`);
      prepare(button, row);
    }
    this.#clocks(line, row);
  }

  // What changes by itself.
  #clocks(line, row) {
    if (!row) return;
    const [activity, why] = line.parts.active.children, [says, more] = line.parts.next.children, clock = says.lastElementChild;
    const active = row.awake === "inside" || row.awake === "report";
    put(activity, active ? "now" : row.active ? words.ago(row.active) : "–");
    put(why, active ? (row.awake === "report" ? "its own report" : "it is in use") : ACTIVITY[row.activity] || "");
    const next = words.next(row);
    if (says.firstChild.data !== next.words) says.firstChild.data = next.words;
    put(clock, next.at ? ` ${words.countdown(next.at)}` : "");
    put(more, next.more);
    more.title = row.failure || "";
    line.parts.next.classList.toggle("soon", !!next.at && next.at - words.now() < 60000);
  }

  // The arrows go from row to row, also to those that are not in the page yet.
  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const line = event.target.closest("tr");
    if (!step || !line?.dataset.id || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const index = this.#shown.indexOf(line.dataset.id) + step;
    if (index < 0 || index >= this.#shown.length) return;
    const next = () => this.#elements.get(this.#shown[index]);
    if (!next()) {
      scrollBy(0, step * this.#height);
      this.render();
    }
    next()?.querySelector(".name").focus();
  }
}

export const ACTIONS = [
  { act: "stop", title: "Stop", hidden: row => ["frozen", "failed"].includes(row.phase) || row.fixed, disabled: row => row.phase !== "running" && row.phase !== "starting" },
  { act: "resume", title: "Resume", hidden: row => !["frozen", "failed"].includes(row.phase) },
  { act: "keep", title: "Keep awake for an hour", hidden: row => row.fixed, disabled: row => row.phase === "removing", pressed: row => row.kept_until > words.now() },
  { act: "policy", title: "Change policy", disabled: row => row.phase === "removing" },
  { act: "remove", title: "Remove", disabled: row => row.phase === "removing" },
];
