// The service's HTTP API: JSON, and streams of events. A failure is an ApiError with what the service said of it.

import { createParser } from "./vendor/eventsource-parser/parse.js";
import { sentence } from "./words.js";

export class ApiError extends Error {
  constructor(status, { condition = "UNKNOWN", message = "The service refused the request.", hint = "" } = {}) {
    super(message);
    Object.assign(this, { status, condition, hint });
  }
}

export class Api {
  /** `key` is a function that gives the reader's key or token, or null; `onRefused` is called when it is not taken. */
  constructor(key, onRefused = () => {}) {
    Object.assign(this, { key, onRefused });
  }

  get(path) {
    return this.#json("GET", path);
  }

  post(path, body) {
    return this.#json("POST", path, body);
  }

  put(path, body) {
    return this.#json("PUT", path, body);
  }

  delete(path) {
    return this.#json("DELETE", path);
  }

  /** Ask for events until the stream ends or `signal` aborts it; `onEvent` gets each event's name and its parsed data. */
  async stream(path, body, signal, onEvent) {
    const response = await this.#fetch("POST", path, body, "text/event-stream", signal);
    const parser = createParser({ onEvent: ({ event, data }) => onEvent(event ?? "message", exact(data)) });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      parser.feed(value);
    }
  }

  async #json(method, path, body) {
    const response = await this.#fetch(method, path, body, "application/json");
    return exact(await response.text());
  }

  async #fetch(method, path, body, accept, signal) {
    const key = this.key();
    const response = await fetch(new URL(`v1/${path}`, document.baseURI), {
      method, signal, cache: "no-store", credentials: "same-origin", redirect: "error",
      headers: {
        Accept: accept,
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }); // prettier-ignore
    if (response.ok) return response;
    const refusal = await response.json().catch(() => ({}));
    const error = new ApiError(response.status, refusal.error);
    if (response.status === 401 && key === this.key()) this.onRefused(error);
    throw error;
  }
}

/** JSON in which a number with more digits than a double holds stays the text that it was: a key of 19 digits, an amount. */
function exact(json) {
  return JSON.parse(json, (_, value, context) => {
    const digits = typeof value === "number" ? context?.source?.replace(/[eE].*|\D/g, "") : undefined;
    return digits?.length > 15 ? context.source : value;
  });
}

/** What a failure is to a reader: `{condition, message, hint}`. */
export function problemOf(error) {
  if (error instanceof ApiError) {
    return { condition: error.condition, message: sentence(error.message), hint: sentence(error.hint) };
  }
  return { condition: "AWAY", message: "The service does not answer.", hint: "It may be starting, or the network is away." };
}
