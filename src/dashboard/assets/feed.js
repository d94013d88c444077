// What the gateway tells: hello, rows, phase. A connection that is lost is made again, and
// everything is told anew then, so nothing has to be kept from before.

const PAUSE_MIN = 500, PAUSE_MAX = 8000;
// The gateway says something every ten seconds.
const SILENCE_MAX = 25000;
// A tab that nobody looks at stops listening after a while.
const HIDDEN_MAX = 60000;

function ask() {
  const stop = new AbortController();
  return { stop, answer: fetch("/dashboard/feed", { signal: stop.signal, headers: { "x-requested-with": "fetch" } }) };
}

export class Feed {
  #hear;
  #stop = null;
  #pause = PAUSE_MIN;
  #timer = 0;
  #hidden = 0;

  // hear: an object with a function for each event, and with lost() and refused(status, words).
  constructor(hear) {
    this.#hear = hear;
    addEventListener("online", () => this.#soon(0));
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#hidden);
      if (document.hidden) this.#hidden = setTimeout(() => this.stop(), HIDDEN_MAX);
      else if (this.#wanted && !this.#stop) this.#soon(0);
    });
  }

  #wanted = false;

  start() {
    this.#wanted = true;
    this.#soon(0);
  }

  // For good, when end is true.
  stop(end = false) {
    if (end) this.#wanted = false;
    clearTimeout(this.#timer);
    this.#stop?.abort();
    this.#stop = null;
  }

  #soon(pause) {
    if (!this.#wanted || this.#stop) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#listen(), pause);
  }

  async #listen() {
    // The first one was asked for before this was loaded.
    const { stop, answer: asked } = globalThis.early || ask();
    globalThis.early = null;
    this.#stop = stop;
    let refused = null;
    try {
      const answer = await asked;
      if (answer.ok) await this.#read(answer.body, stop);
      else if (answer.status === 401 || answer.status === 403) {
        const said = await answer.json().catch(() => ({}));
        refused = [answer.status, said.detail];
      }
    } catch { /* It is tried again, whatever it was. */ }
    if (this.#stop !== stop) return;
    this.#stop = null;
    if (refused) {
      this.#wanted = false;
      return this.#hear.refused(...refused);
    }
    this.#hear.lost();
    this.#soon(this.#pause * (0.75 + Math.random() / 2));
    this.#pause = Math.min(PAUSE_MAX, this.#pause * 2);
  }

  async #read(body, stop) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", timer = 0;
    try {
      for (;;) {
        timer = setTimeout(() => stop.abort(), SILENCE_MAX);
        const { value, done } = await reader.read();
        clearTimeout(timer);
        if (done) return;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        events.forEach(event => this.#take(event));
        // What was heard is worth a quick return.
        this.#pause = PAUSE_MIN;
      }
    } finally {
      clearTimeout(timer);
      reader.cancel().catch(() => {});
    }
  }

  #take(event) {
    const name = /^event: (.*)$/m.exec(event)?.[1], data = /^data: (.*)$/m.exec(event)?.[1];
    if (name && data) this.#hear[name]?.(JSON.parse(data));
  }
}
