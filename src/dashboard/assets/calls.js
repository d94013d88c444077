// The calls of the API. What goes wrong is an Error whose message is for people.

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function problem(answer) {
  const kind = answer.headers.get("content-type") || "";
  const said = kind.includes("json") ? await answer.json().catch(() => ({})) : {};
  return new Problem(answer.status, said.detail || said.message || `The gateway answered ${answer.status}.`);
}

let onLoggedOut = () => {};
export const whenLoggedOut = act => { onLoggedOut = act };

export async function send(method, path, body, options = {}) {
  // By which the gateway knows that the browser is not to ask for a password.
  const headers = { "x-requested-with": "fetch", ...body !== undefined && { "content-type": "application/json" } };
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The gateway can't be reached.");
  }
  if (answer.status === 401) onLoggedOut();
  if (!answer.ok) throw await problem(answer);
  return answer;
}

export async function read(path, options) {
  return (await send("GET", path, undefined, options)).json();
}

export const at = (id, call = "") => `/workspaces/${encodeURIComponent(id)}${call}`;

export async function logIn(token) {
  await send("POST", "/session", { token });
}

export const logOut = () => send("DELETE", "/session");
