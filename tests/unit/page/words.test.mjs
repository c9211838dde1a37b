import assert from "node:assert/strict";
import { test } from "node:test";

import { delay, freshnessWords, moment, rowName, sentence, staleWords } from "../../../service/page/words.js";

test("a row is named by its table and its key", () => {
  assert.equal(rowName({ table: "public.articles", key: { id: 3 } }), "articles 3");
  assert.equal(rowName({ table: "shop.order_lines", key: { order: "a/1", line: 2 } }), "order_lines a/1, 2");
});

test("what is stale is said once a row", () => {
  const citation = (id, state) => ({ table: "public.articles", key: { id }, document_id: `a${id}`, state, at: null });
  const cited = [citation(3, "changed"), citation(3, "changed"), citation(4, "live"), citation(5, "gone")];
  assert.deepEqual(staleWords(cited), ["articles 3 has changed", "articles 5 is gone"]);
});

test("times that are unknown or no times are not shown", () => {
  for (const at of [null, undefined, "", "soon"]) assert.equal(moment(at), "");
  assert.equal(delay("2026-01-01T00:00:00.100Z", "2026-01-01T00:00:00.126Z"), "26 ms after the commit");
  assert.equal(delay("2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"), "", "clocks of two machines");
});

test("the badge says how far the index is behind, or that nobody knows", () => {
  const level = (lag_seconds, connection = "live") => freshnessWords({ searchable_as_of: "x", lag_seconds }, connection).level;
  const levels = [level(0.02), level(30), level(4000), level(null), level(0.02, "away")];
  assert.deepEqual(levels, ["fresh", "late", "old", "unknown", "unknown"]);
  assert.equal(freshnessWords({ lag_seconds: 0 }, "live").text, "Less than 1 s behind");
  assert.equal(freshnessWords({ lag_seconds: 45.4 }, "live").text, "45 s behind");
});

test("what the service says is shown as a sentence", () => {
  assert.deepEqual(["the key is not known", "Why?", ""].map(sentence), ["The key is not known.", "Why?", ""]);
});
