// The watch of cited rows: one stream of events, opened again with growing pauses when it breaks. What changed meanwhile is
// sent at once when it is open again, as the service compares versions.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
const SILENCE = 10_000; // the freshness comes every second

const browserTimers = {
  after: (milliseconds, call) => setTimeout(call, milliseconds),
  clear: (timer) => clearTimeout(timer),
};

export class Watch {
  #rows = new Map();
  #controller = null;
  #timer = null;
  #failures = 0;
  #closed = false;

  /** `on` has `state(event, version)`, `freshness(event)` and `connection("live" | "away")`; `timers` are the browser's. */
  constructor(api, on, timers = browserTimers) {
    Object.assign(this, { api, on, timers });
    this.#connect();
  }

  /** Watch these rows, a Map of versions by document; the same ones change nothing. */
  follow(rows) {
    const same = rows.size === this.#rows.size && [...rows].every(([id, version]) => this.#rows.get(id) === version);
    if (same) return;
    this.#rows = rows;
    this.reconnect();
  }

  /** Connect now, without waiting for the end of a pause. */
  reconnect() {
    if (this.#closed) return;
    this.#disconnect();
    this.#connect();
  }

  /** Let go of the connection until `reconnect`. */
  rest() {
    this.#disconnect();
  }

  close() {
    this.#closed = true;
    this.#disconnect();
  }

  #disconnect() {
    this.timers.clear(this.#timer);
    this.#controller?.abort();
    this.#controller = null;
  }

  async #connect() {
    const controller = new AbortController();
    this.#controller = controller;
    const rows = this.#rows;
    let silence;
    const awaitNext = () => {
      this.timers.clear(silence);
      silence = this.timers.after(SILENCE, () => controller.abort());
    };
    awaitNext();
    let error = null;
    try {
      const citations = [...rows].map(([document_id, version]) => ({ document_id, version }));
      await this.api.stream("watch", { citations }, controller.signal, (name, data) => {
        if (this.#controller !== controller) return;
        awaitNext();
        this.#failures = 0;
        this.on.connection("live");
        if (name === "state") this.on.state(data, rows.get(data.document_id));
        if (name === "freshness") this.on.freshness(data);
      });
    } catch (failure) {
      error = failure;
    }
    this.timers.clear(silence);
    if (this.#controller !== controller || this.#closed) return;
    this.on.connection("away");
    if (error?.status === 401) return;
    this.#timer = this.timers.after(pauseAfter(this.#failures), () => this.#connect());
    this.#failures += 1;
  }
}

/** Milliseconds until the next try, after so many failures in a row. */
export function pauseAfter(failures, random = Math.random) {
  return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(failures, 10)) * (0.8 + 0.4 * random());
}
