// The dashboard: logs in, listens, and passes on what it hears.

import { at, logIn, logOut, read, send, whenLoggedOut } from "./calls.js";
import { Feed } from "./feed.js";
import * as forms from "./forms.js";
import { bars, course } from "./plots.js";
import { Table, put } from "./table.js";
import * as words from "./words.js";
import * as workspace from "./workspace.js";

const OVERVIEW_EVERY = 30000;
const NOTE_TIME = 6000;

const by = id => document.getElementById(id);

// ---- What goes on

let about = { url: "", mayChange: false, act };
let counts = {};
// Whether we have been told who watches.
let known = false;

const isIn = () => document.documentElement.classList.contains("in");
function enter(into) {
  document.documentElement.classList.toggle("in", into);
  localStorage.setItem("in", into ? "yes" : "no");
}
const table = new Table(act);

const feed = new Feed({
  hello({ now, name, scope, may_change, url }) {
    words.setClock(now);
    const changed = !known || about.mayChange !== may_change;
    known = true;
    about = { url, mayChange: may_change, act };
    Object.assign(table, { url, mayChange: may_change });
    put(by("who"), name === scope ? name : `${name} (${scope})`);
    by("create").hidden = !may_change;
    enter(true);
    say("live", may_change ? "Live" : "Live, read only");
    if (changed) overview();
  },
  rows(news) {
    words.setClock(news.now);
    table.take(news);
    count();
    if (news.reset || location.hash.startsWith("#/workspaces/")) route();
  },
  phase({ id, phase, tier, reason, took_ms }) {
    const took = took_ms == null ? "" : ` after ${words.took(took_ms)}`;
    announce(`${id}: ${words.phase({ phase, tier })}${took}, ${reason}`);
  },
  beat({ now }) { words.setClock(now) },
  bye() { feed.stop(true), askForToken("Your session has ended.") },
  lost() {
    say("lost", "Reconnecting…");
    if (!isIn()) put(by("login-error"), "The gateway can't be reached. It is tried again.");
  },
  refused(status, why) { askForToken(status === 401 ? "" : why) },
});

function say(state, text) {
  by("state").dataset.state = state;
  put(by("state-words"), text);
}

// Many at once are told as one, so that nobody is talked to for minutes.
let told = [], telling = 0;
function announce(text) {
  told.push(text);
  clearTimeout(telling);
  telling = setTimeout(() => {
    by("announcer").textContent = told.length > 3 ? `${told.length} workspaces changed` : told.join(". ");
    told = [];
  }, 300);
}

function note(text, kind = "fine") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  if (kind === "wrong") line.setAttribute("role", "alert");
  by("notes").append(line);
  setTimeout(() => line.remove(), kind === "wrong" ? NOTE_TIME * 2 : NOTE_TIME);
}

// ---- Numbers above the table

function count() {
  const all = { "": table.rows.size, running: 0, frozen: 0, busy: 0, failed: 0 };
  let saved = null, paused = 0;
  for (const row of table.rows.values()) {
    all[words.isBusy(row) ? "busy" : row.phase]++;
    if (row.tier === "paused") paused++;
    if (row.saved != null) saved = (saved || 0) + row.saved;
  }
  const news = ["running", "frozen", "busy"].some(name => counts[name] !== all[name]);
  counts = all;
  for (const chip of by("phases").children) put(chip.lastElementChild, all[chip.dataset.phase].toLocaleString("en"));
  put(by("running"), all.running.toLocaleString("en"));
  put(by("frozen"), all.frozen.toLocaleString("en"));
  put(by("frozen-more"), paused ? `${paused.toLocaleString("en")} paused, ${(all.frozen - paused).toLocaleString("en")} stopped` : "all stopped");
  if (!all.frozen) put(by("frozen-more"), "nobody sleeps");
  put(by("saved"), saved == null ? "–" : words.bytes(saved));
  if (news) slots();
}

async function slots() {
  try {
    const { workspace_slots: { all, free } } = await read("/stats");
    put(by("slots"), all == null ? "no limit" : `of ${all} slots, ${free} free`);
  } catch { /* The connection says so itself. */ }
}

async function overview() {
  slots();
  try {
    const { points, wakes } = await read("/history?hours=24");
    const of = name => points.map(point => [Date.parse(point.at), point[name]]);
    const whole = number => number.toLocaleString("en");
    course(by("running-plot"), of("running"), "Running", number => `${whole(number)} running`);
    course(by("frozen-plot"), of("frozen"), "Frozen", number => `${whole(number)} frozen`);
    course(by("saved-plot"), of("memory_saved_bytes"), "Memory saved", words.bytes);
    put(by("saved-more"), `${gibHours(points).toLocaleString("en", { maximumSignificantDigits: 3 })} GiB-hours in a day`);
    put(by("wakes"), wakes.count ? words.took(wakes.p50_ms) : "–");
    put(by("wakes-more"), `${words.many(wakes.count, "wake")} in a day${wakes.failed ? `, ${wakes.failed} failed` : ""}`);
    bars(by("wakes-plot"), [["p50", wakes.p50_ms], ["p95", wakes.p95_ms]]);
  } catch (problem) {
    // It is not for everybody.
    by("overview").classList.toggle("bare", problem.status === 403);
  }
}

function gibHours(points) {
  let sum = 0;
  for (let index = 1; index < points.length; index++) {
    const hours = (Date.parse(points[index].at) - Date.parse(points[index - 1].at)) / 3.6e6;
    // A gap is a time of which nothing is known.
    if (hours < 0.2) sum += points[index - 1].memory_saved_bytes * hours;
  }
  return sum / 2 ** 30;
}

// ---- What is done

const DEEDS = {
  stop: ({ id }) => send("PUT", at(id, "/stop?wait=false")).then(() => `${id} is being stopped.`),
  resume: ({ id }) => send("PUT", at(id, "/resume?wait=false")).then(() => `${id} is being woken.`),
  keep: ({ id, kept_until }) => kept_until > words.now()
    ? send("PUT", at(id, "/keep"), { for: 0 }).then(() => `${id} is no longer kept awake.`)
    : send("PUT", at(id, "/keep"), { for: "1h" }).then(() => `${id} is kept awake for an hour.`),
  policy: ({ id }) => forms.changePolicy(id, note),
  remove: ({ id }) => forms.confirmRemoval(id, async () => {
    await send("DELETE", at(id));
    note(`${id} is removed.`);
    if (location.hash === `#/workspaces/${id}`) location.hash = "#/";
  }),
};

async function act(what, row) {
  if (!row) return;
  try {
    const done = await DEEDS[what](row);
    if (done) note(done);
  } catch (problem) {
    note(problem.message, "wrong");
  }
}

by("create").addEventListener("click", async () => {
  try {
    await forms.create(({ id }) => note(`${id} is created, and starts.`));
  } catch (problem) {
    note(problem.message, "wrong");
  }
});

// ---- Where one is

let shown = null, scrolled = 0;
function route() {
  const [, id] = /^#\/workspaces\/([a-z0-9-]+)$/.exec(location.hash) || [];
  if (shown === null && id) scrolled = scrollY;
  by("list").hidden = !!id;
  by("detail").hidden = !id;
  document.title = id ? `${id} – Frostgate` : "Frostgate";
  if (id) workspace.show(id, about, table.rows.get(id));
  else if (shown) {
    workspace.close();
    table.render();
    scrollTo(0, scrolled);
    table.render();
    table.table.querySelector(`[data-id="${shown}"] .name`)?.focus({ preventScroll: true });
  }
  shown = id || null;
}
addEventListener("hashchange", () => known && route());

by("skip").addEventListener("click", event => {
  event.preventDefault();
  by("content").focus();
});
addEventListener("keydown", event => {
  const writes = event.target.closest("input, select, textarea, dialog");
  if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || by("list").hidden) return;
  event.preventDefault();
  by("find").focus();
});

// ---- Light and dark

const THEMES = ["auto", "light", "dark"];
function theme(next) {
  if (next === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
  }
  by("theme").querySelector("use").setAttribute("href", `#${next}`);
  const words = { auto: "Colours as the system has them", light: "Light colours", dark: "Dark colours" }[next];
  by("theme").title = words;
  by("theme").setAttribute("aria-label", words);
}
const current = () => document.documentElement.dataset.theme || "auto";
theme(current());
by("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]));

// ---- In and out

function askForToken(why = "") {
  feed.stop(true);
  workspace.close();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  table.take({ reset: true, rows: [], gone: [] });
  known = false;
  // Somebody may be writing already.
  if (isIn()) by("token").value = "";
  enter(false);
  put(by("login-error"), why || "");
  by("token").focus();
}
whenLoggedOut(() => known && askForToken("Your session has ended."));

by("login-form").addEventListener("submit", async event => {
  event.preventDefault();
  put(by("login-error"), "");
  try {
    await logIn(by("token").value);
    feed.start();
  } catch (problem) {
    put(by("login-error"), problem.message);
    by("token").select();
  }
});
by("logout").addEventListener("click", async () => {
  await logOut().catch(() => {});
  askForToken();
});

setInterval(() => {
  if (document.hidden) return;
  table.tick();
  workspace.tick();
}, 1000);
setInterval(() => document.hidden || !known || overview(), OVERVIEW_EVERY);
feed.start();
