import assert from "node:assert/strict";
import { test } from "node:test";

import { pauseAfter, Watch } from "../../../service/page/watch.js";

/** A service whose streams the test ends, one after another. */
function service() {
  const streams = [];
  const stream = (path, body, signal, onEvent) =>
    new Promise((end, fail) => {
      signal.addEventListener("abort", () => fail(new DOMException("", "AbortError")));
      streams.push({ path, watched: body.citations, signal, onEvent, end, fail });
    });
  return { streams, stream };
}

function heard() {
  const events = [];
  const note = (name) => (...values) => events.push([name, ...values]);
  return { events, on: { state: note("state"), freshness: note("freshness"), connection: note("connection") } };
}

/** Timers whose time the test lets pass. */
class Timers {
  now = 0;
  set = new Map();

  after(milliseconds, call) {
    const timer = Symbol("timer");
    this.set.set(timer, { at: this.now + milliseconds, call });
    return timer;
  }

  clear(timer) {
    this.set.delete(timer);
  }

  pass(milliseconds) {
    this.now += milliseconds;
    for (const [timer, { at, call }] of this.set) {
      if (at > this.now) continue;
      this.set.delete(timer);
      call();
    }
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a broken watch is opened again with growing pauses, for the same rows", async () => {
  const timers = new Timers();
  const [{ streams, ...api }, { events, on }] = [service(), heard()];
  const watch = new Watch(api, on, timers);
  watch.follow(new Map([["a3", "v1"]]));
  for (const longest of [600, 1200, 2400]) {
    const open = streams.length;
    streams.at(-1).fail(new TypeError("network"));
    await settled();
    timers.pass(longest / 3);
    assert.equal(streams.length, open, "not at once");
    timers.pass(longest);
    assert.equal(streams.length, open + 1);
    assert.deepEqual(streams.at(-1).watched, [{ document_id: "a3", version: "v1" }]);
  }
  streams.at(-1).onEvent("freshness", { lag_seconds: 1 });
  assert.deepEqual(events.slice(-2), [["connection", "live"], ["freshness", { lag_seconds: 1 }]]);
  watch.close();
});

test("an event is told with the version that was watched, and none of a stream that was left", () => {
  const timers = new Timers();
  const [{ streams, ...api }, { events, on }] = [service(), heard()];
  const watch = new Watch(api, on, timers);
  watch.follow(new Map([["a3", "v1"]]));
  const left = streams.at(-1);
  watch.follow(new Map([["a3", "v2"]]));
  assert.ok(left.signal.aborted);
  left.onEvent("state", { document_id: "a3", state: "changed" });
  assert.deepEqual(events, []);
  streams.at(-1).onEvent("state", { document_id: "a3", state: "gone" });
  assert.deepEqual(events.at(-1), ["state", { document_id: "a3", state: "gone" }, "v2"]);
  watch.close();
});

test("a watch that falls silent is opened again", async () => {
  const timers = new Timers();
  const [{ streams, ...api }, { on }] = [service(), heard()];
  const watch = new Watch(api, on, timers);
  timers.pass(11_000);
  await settled();
  timers.pass(1000);
  assert.equal(streams.length, 2);
  watch.close();
});

test("a page that nobody sees holds no connection, and has one at once when it is seen again", async () => {
  const timers = new Timers();
  const [{ streams, ...api }, { events, on }] = [service(), heard()];
  const watch = new Watch(api, on, timers);
  watch.rest();
  assert.ok(streams[0].signal.aborted);
  await settled();
  timers.pass(120_000);
  assert.deepEqual([streams.length, events], [1, []]);
  watch.reconnect();
  assert.equal(streams.length, 2);
  watch.close();
});

test("nothing is opened after the end, nor after a refusal to the reader", async () => {
  const timers = new Timers();
  const [{ streams, ...api }, { on }] = [service(), heard()];
  const watch = new Watch(api, on, timers);
  streams.at(-1).fail(Object.assign(new Error("refused"), { status: 401 }));
  await settled();
  timers.pass(60_000);
  assert.equal(streams.length, 1);
  watch.close();
  watch.reconnect();
  assert.equal(streams.length, 1);
});

test("a pause is half a second at first and half a minute at most, and never the same for all", () => {
  assert.deepEqual([pauseAfter(0, () => 0.5), pauseAfter(3, () => 0.5), pauseAfter(50, () => 0.5)], [500, 4000, 30_000]);
  assert.notEqual(pauseAfter(3, () => 0), pauseAfter(3, () => 0.9));
});
