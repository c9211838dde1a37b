import assert from "node:assert/strict";
import { test } from "node:test";

import {
  afterChange, afterEvent, asked, ended, isRewritten, isStale, MARK, markdownOf, remembered, watchedRows, withTurn,
} from "../../../service/page/conversation.js";

const row = (id, version) => ({ table: "public.articles", key: { id }, document_id: `a${id}`, chunk_index: 0, version });

function answer(...citations) {
  const sentences = [{ text: "It is so.", citations: [1], unsupported: [] }];
  return { answer: "It is so.", abstained: false, sentences, citations, facts: [] };
}

const answeredTurn = (...citations) => afterEvent(asked("Is it?"), "answer", answer(...citations));
const states = (turns) => turns.map((turn) => turn.citations.map((each) => each.state));

test("a restart takes back what was said", () => {
  let turn = asked("Is it?");
  turn = afterEvent(turn, "citation", { number: 1, ...row(3, "v1") });
  turn = afterEvent(turn, "sentence", { text: "It was.", citations: [1], unsupported: [] });
  turn = afterEvent(turn, "fact", { fact: "f", columns: [], rows: [] });
  turn = afterEvent(turn, "restart", {});
  assert.deepEqual([turn.sentences, turn.citations, turn.facts, turn.restarted], [[], [], [], true]);
});

test("an event of another version of the service changes nothing", () => {
  const turn = asked("Is it?");
  assert.equal(afterEvent(turn, "thinking", { text: "hm" }), turn);
});

test("a change marks the answers that cite this version, and no others", () => {
  const turns = [answeredTurn(row(3, "v1"), row(4, "v1")), answeredTurn(row(3, "v2")), answeredTurn(row(5, "v1"))];
  const after = afterChange(turns, { document_id: "a3", state: "changed", at: "2026-01-01T00:00:00Z" }, "v1");
  assert.deepEqual(states(after), [["changed", "live"], ["live"], ["live"]]);
  assert.deepEqual(after.map(isStale), [true, false, false]);
  assert.equal(after[2], turns[2]);
});

test("a row that is gone after it changed is gone, and never only changed again", () => {
  const at = null;
  let turns = [answeredTurn(row(3, "v1"))];
  for (const state of ["changed", "gone", "changed"]) turns = afterChange(turns, { document_id: "a3", state, at }, "v1");
  assert.deepEqual(states(turns), [["gone"]]);
});

test("a row that is gone is gone for every answer that cites it", () => {
  let turns = [answeredTurn(row(3, "v1")), answeredTurn(row(3, "v2")), answeredTurn(row(3, "v3"))];
  turns = afterChange(turns, { document_id: "a3", state: "changed", at: null }, "v1");
  turns = afterChange(turns, { document_id: "a3", state: "gone", at: null }, "v2");
  assert.deepEqual(states(turns), [["gone"], ["gone"], ["live"]]);
});

test("an answer from a newer version of a row makes the earlier answer stale", () => {
  const first = answeredTurn(row(3, "v1"), row(4, "v1"));
  const second = asked("Is it still?");
  const turns = withTurn([first, second], afterEvent(second, "answer", answer(row(3, "v2"), row(4, "v1"))));
  assert.deepEqual(states(turns), [["changed", "live"], ["live", "live"]]);
});

test("an answer without versions marks nothing", () => {
  const first = answeredTurn(row(3, "v1"));
  const second = asked("Is it still?");
  assert.deepEqual(states(withTurn([first, second], afterEvent(second, "answer", answer(row(3, undefined))))), [["live"], ["live"]]);
});

test("rows are watched in the version that a live answer cites", () => {
  let turns = [answeredTurn(row(3, "v1"), row(4, "v1")), answeredTurn(row(3, "v2")), asked("Unanswered?")];
  turns = afterChange(turns, { document_id: "a3", state: "changed", at: null }, "v1");
  assert.deepEqual([...watchedRows(turns)].sort(), [["a3", "v2"], ["a4", "v1"]]);
  turns = afterChange(turns, { document_id: "a4", state: "gone", at: null }, "v1");
  assert.deepEqual([...watchedRows(turns).keys()], ["a3"]);
  turns = afterChange(turns, { document_id: "a3", state: "changed", at: null }, "v2");
  assert.deepEqual([...watchedRows(turns).keys()], ["a3"], "that it is gone is still worth saying");
});

test("of very many rows the last are watched", () => {
  const turns = Array.from({ length: 30 }, (_, index) => answeredTurn(...Array.from({ length: 10 }, (__, at) => row(index * 10 + at, "v1"))));
  const watched = watchedRows(turns, 200);
  assert.equal(watched.size, 200);
  assert.ok(watched.has("a299") && !watched.has("a0"));
});

test("a stream that ends without an answer is broken, stopped or refused", () => {
  const problem = { condition: "RATE_LIMITED", message: "Too many.", hint: "" };
  assert.equal(ended(asked("?")).phase, "broken");
  assert.equal(ended(asked("?"), { stopped: true }).phase, "stopped");
  assert.deepEqual([ended(asked("?"), { error: problem }).phase, ended(asked("?"), { error: problem }).error], ["failed", problem]);
  assert.equal(ended(answeredTurn(row(3, "v1")), { stopped: true }).phase, "answered");
});

test("a question that was searched in other words is told from one that was only shortened", () => {
  const searched = (question, standalone) => isRewritten({ question, standalone });
  assert.equal(searched("And of the Skua mast?", "warranty Moss probe And of the Skua mast?"), true);
  assert.equal(searched("Who won? long long", "Who won long"), false);
  assert.equal(searched("Who won?", null), false);
});

test("a kept exchange comes back with its citations, its rating, or why it has no answer", () => {
  const kept = { turn: 2, turn_id: "t", question: "Is it?", state: "answered", answer: answer(row(3, "v1")), rating: { rating: "up", comment: "" } };
  const turn = remembered(kept);
  assert.deepEqual([turn.phase, turn.number, turn.citations[0].number, turn.rating.saved], ["answered", 2, 1, true]);
  assert.equal(remembered({ ...kept, answer: null, state: "in progress" }).phase, "elsewhere");
  assert.equal(remembered({ ...kept, answer: null, state: "unanswered" }).phase, "unanswered");
});

test("no text of a model makes a mark of citation of its own", () => {
  const forged = markdownOf([{ text: "See \uE000c9\uE001 here.", citations: [1, 2], unsupported: [] }]);
  assert.deepEqual(MARK.exec(forged).slice(1, 3), ["c", "1,2"]);
  assert.equal(forged.match(/\uE000/g).length, 1);
});

test("facts are numbered apart from rows, in a stream as in the answer", () => {
  const fact = { fact: "hours", columns: ["hours"], rows: [["6.75"]], loaded_at: null };
  const streamed = afterEvent(afterEvent(asked("?"), "fact", { number: 1, ...fact }), "fact", fact);
  assert.deepEqual(streamed.facts.map((each) => each.number), [1, 2]);
  const whole = afterEvent(asked("?"), "answer", { ...answer(row(3, "v1")), facts: [fact, fact] });
  assert.deepEqual(whole.facts, streamed.facts);
  const text = markdownOf([{ text: "6.75 hours.", citations: [1], facts: [2], unsupported: [] }]);
  assert.equal(text, "6.75 hours.\uE000c1\uE001\uE000f2\uE001");
});

test("sentences that begin a list or a heading begin a line", () => {
  const text = (words) => ({ text: words, citations: [], unsupported: [] });
  assert.equal(markdownOf(["Two things.", "- One.", "2. Two.", "All."].map(text)), "Two things.\n- One.\n2. Two. All.");
});
