// Dialogs: to be sure, to change a policy, to create a workspace.

import { at, read, send } from "./calls.js";
import { element } from "./table.js";
import { duration } from "./words.js";

// Every field of a policy: its name, what people call it, what kind of value it has, what it does.
const POLICY = [
  ["inactivity_timeout", "Freeze after", "limit", "How long nobody may be inside until it is frozen, or removed where it can't be kept. “never”: only a stop freezes it."],
  ["initial_timeout", "Grace after a start", "time", "It is not frozen for so long after it became ready, even if nobody comes."],
  ["freeze_mode", "How it is frozen", ["stop", "pause"], "stop: its memory, its CPU time and its slot are free, its disk is kept. pause: its memory is kept, and it wakes in milliseconds."],
  ["stop_after", "Stop a paused one after", "limit", "A paused workspace is stopped after so long, which frees its memory. “never”: it stays paused."],
  ["max_inactive_storage_time", "Keep while frozen for", "storage", "Frozen for longer than this, it is removed with all that it has. “unlimited”: it is kept. 0: it can't be frozen, so idle means removed."],
  ["max_storage_time", "Remove at the age of", "limit", "Removed at this age, even in use. “never”: it is not."],
  ["check_in_ttl", "A report counts for", "limit", "When its own report that it is active no longer counts. “never”: until the next report."],
  ["hold_max", "Hold requests for", "time", "How long a request may wait for it to wake before it is refused."],
  ["page_after", "Waiting page after", "time", "How long somebody who opens a page sees nothing, until the waiting page is shown."],
  ["stop_hold_off", "Stay stopped for", "time", "After an admin's stop, for so long only a page that is opened wakes it, and no script of a forgotten tab."],
  ["connection_activity", "Open tunnels count", ["open", "traffic"], "open: an open WebSocket keeps it awake. traffic: only one through which something passes."],
  ["idle_bytes", "Quiet below", "bytes", "Where traffic counts: so many bytes in the time of “Freeze after” are none, such as the pings of a forgotten tab."],
  ["monitoring", "Freeze it when idle", ["true", "false"], "false: only a stop freezes it."],
];

const CREATE_FIRST = ["inactivity_timeout", "freeze_mode", "max_inactive_storage_time", "max_storage_time"];

function shown(kind, value) {
  if (Array.isArray(kind)) return String(value);
  if (kind === "bytes") return value % 1024 || !value ? String(value) : `${value / 1024}KiB`;
  if (value == null) return kind === "storage" ? "unlimited" : "never";
  return kind === "limit" && value === 0 ? "never" : kind === "storage" && value === 0 ? "0" : duration(value);
}

// As the API takes it.
const meant = (kind, text) => kind === "limit" && (text === "never" || text === "") ? 0 : text;

function field([name, label, kind, help], value, none) {
  const id = `f-${name}`;
  const input = Array.isArray(kind)
    ? element("select", { id, name }, ...(none ? [element("option", { value: "", textContent: none })] : []),
      ...kind.map(word => element("option", { value: word, textContent: word })))
    : element("input", { id, name, type: "text", autocomplete: "off", spellcheck: false, placeholder: none || "" });
  input.value = value ?? "";
  input.setAttribute("aria-describedby", `${id}-help`);
  return element("div", { className: "field" }, element("label", { htmlFor: id, textContent: label }), input,
    element("p", { id: `${id}-help`, className: "hint", textContent: help }));
}

const by = id => document.getElementById(id);

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", event => {
    if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
}

// Opens a dialog; `act` is carried out when it is sent, and closes it unless it fails.
function open(dialog, act) {
  const form = dialog.querySelector("form"), error = dialog.querySelector(".error"), yes = dialog.querySelector("[type=submit]");
  error.textContent = "";
  yes.disabled = false;
  form.onsubmit = async event => {
    event.preventDefault();
    error.textContent = "";
    for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    yes.disabled = true;
    try {
      await act(form);
      dialog.close();
    } catch (problem) {
      error.textContent = problem.message;
      const wrong = form.querySelector(`[name="${/^\w+/.exec(problem.message)?.[0]}"]`);
      wrong?.setAttribute("aria-invalid", "true");
      wrong?.focus();
    }
    yes.disabled = false;
  };
  dialog.showModal();
  form.querySelector("input, select")?.focus();
}

export function confirmRemoval(id, act) {
  by("ask-title").textContent = `Remove ${id}?`;
  by("ask-text").textContent = "It is stopped, whoever is inside, and removed with all that it has. This can't be undone.";
  by("ask-yes").textContent = "Remove";
  open(by("ask"), act);
}

export async function changePolicy(id, note) {
  const { policy } = await read(at(id));
  const before = new Map(POLICY.map(([name, , kind]) => [name, shown(kind, policy[name])]));
  by("form-title").textContent = `Policy of ${id}`;
  by("form-text").textContent = "Times are written as 90s, 15m, 1h 30m or 2d. What you change holds at once and for good.";
  by("form-yes").textContent = "Save";
  by("form-fields").replaceChildren(...POLICY.map(one => field(one, before.get(one[0]))));
  open(by("form"), async form => {
    const changes = {};
    for (const [name, , kind] of POLICY) {
      const text = form.elements[name].value.trim();
      if (text !== before.get(name)) changes[name] = meant(kind, text);
    }
    if (Object.keys(changes).length) {
      await send("PATCH", at(id), changes);
      note(`The policy of ${id} is changed.`);
    }
  });
}

export async function create(created) {
  const { items } = await read("/projects");
  by("form-title").textContent = "New workspace";
  by("form-text").textContent = items.length ? "It is made from a project, which is a template, and is started at once."
    : "There are no projects to create a workspace from. They stand in the configuration as [projects.…].";
  by("form-yes").textContent = "Create";
  const project = element("select", { id: "f-project", name: "project_id" },
    ...items.map(({ id, name }) => element("option", { value: id, textContent: name === id ? id : `${name} (${id})` })));
  const id = element("input", { id: "f-id", name: "id", autocomplete: "off", spellcheck: false, placeholder: "a random one" });
  id.setAttribute("aria-describedby", "f-id-help");
  const none = "as the project says";
  const of = names => POLICY.filter(([name]) => CREATE_FIRST.includes(name) === names).map(one => field(one, "", none));
  by("form-fields").replaceChildren(
    element("div", { className: "field" }, element("label", { htmlFor: "f-project", textContent: "Project" }), project),
    element("div", { className: "field" }, element("label", { htmlFor: "f-id", textContent: "Name" }), id,
      element("p", { id: "f-id-help", className: "hint", textContent: "The first part of its address: a to z, 0 to 9 and -. A random one can't be guessed." })),
    ...of(true), element("details", {}, element("summary", { textContent: "The rest of its policy" }), ...of(false)));
  by("form-yes").hidden = !items.length;
  open(by("form"), async form => {
    const order = { project_id: project.value };
    if (id.value.trim()) order.id = id.value.trim();
    for (const [name, , kind] of POLICY) {
      const text = form.elements[name].value.trim();
      if (text) order[name] = meant(kind, text);
    }
    created((await (await send("POST", "/workspaces", order)).json()).workspace);
  });
}
by("form").addEventListener("close", () => { by("form-yes").hidden = false });
