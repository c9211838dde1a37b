// Turns of a conversation, and how each event changes them. Pure: neither document nor network.

import { sentence } from "./words.js";

let counted = 0;

/** A turn whose question was just sent. `turnId` names it to the service, so that it may be sent again. */
export function asked(question, turnId = null) {
  counted += 1;
  return {
    id: `turn-${counted}`, question, turnId, number: null, standalone: null, phase: "asking",
    sentences: [], citations: [], facts: [], answer: null, error: null, restarted: false, rating: null,
  };
}

/** A turn that the memory kept. */
export function remembered(exchange) {
  const turn = { ...asked(exchange.question), number: exchange.turn };
  const { answer } = exchange;
  if (answer) {
    const rating = exchange.rating ? { ...exchange.rating, saved: true } : null;
    return { ...answered(turn, { sentences: [], citations: [], facts: [], ...answer }), rating };
  }
  return { ...turn, phase: exchange.state === "in progress" ? "elsewhere" : "unanswered" };
}

/** The turn after one event of its stream; an event that this page does not know changes nothing. */
export function afterEvent(turn, name, data) {
  switch (name) {
    case "started":
      return {
        ...turn,
        number: data.turn ?? turn.number,
        turnId: data.turn_id ?? turn.turnId,
        standalone: data.standalone_question ?? null,
      };
    case "citation":
      return { ...turn, citations: [...turn.citations.filter((each) => each.number !== data.number), live(data, data.number)] };
    case "sentence":
      return { ...turn, sentences: [...turn.sentences, data] };
    case "fact":
      return { ...turn, facts: [...turn.facts, { number: turn.facts.length + 1, ...data }] };
    case "restart":
      return { ...turn, sentences: [], citations: [], facts: [], restarted: true };
    case "answer":
      return answered(turn, data);
    case "error":
      return { ...turn, phase: "failed", error: { ...data, message: sentence(data.message), hint: sentence(data.hint) } };
    default:
      return turn;
  }
}

function answered(turn, answer) {
  return {
    ...turn,
    phase: "answered",
    answer,
    number: answer.turn ?? turn.number,
    turnId: answer.turn_id ?? turn.turnId,
    standalone: answer.standalone_question ?? turn.standalone,
    sentences: answer.sentences,
    facts: (answer.facts ?? []).map((fact, index) => ({ number: index + 1, ...fact })),
    citations: answer.citations.map((citation, index) => live(citation, citation.number ?? index + 1)),
  };
}

function live(citation, number) {
  return { ...citation, number, state: "live", at: null };
}

/** How the stream of a turn ended that has no answer: the reader stopped it, it broke, or the service refused. */
export function ended(turn, { stopped = false, error = null } = {}) {
  if (turn.phase !== "asking") return turn;
  if (stopped) return { ...turn, phase: "stopped" };
  return { ...turn, phase: error ? "failed" : "broken", error };
}

/** Whether a question was searched in other words than the reader's, and not only shortened or without its signs. */
export function isRewritten({ question, standalone }) {
  return standalone !== null && !letters(question).startsWith(letters(standalone));
}

const letters = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");

export function isStale(turn) {
  return turn.phase === "answered" && turn.citations.some((citation) => citation.state !== "live");
}

/**
 * The turns with one replaced. Where an earlier answer cites another version of a row than this one, that row has changed
 * since the earlier answer, whether or not the service has said so yet.
 */
export function withTurn(turns, turn) {
  const versions = new Map(turn.phase === "answered" ? turn.citations.map((each) => [each.document_id, each.version]) : []);
  const at = turns.findIndex((each) => each.id === turn.id);
  return turns.map((each, index) => {
    if (index === at) return turn;
    if (index > at || versions.size === 0) return each;
    return marked(each, (citation) => isOlder(citation, versions.get(citation.document_id)), "changed", null);
  });
}

function isOlder(citation, version) {
  return Boolean(citation.version && version) && citation.version !== version;
}

/**
 * The turns after a row of this version has changed or gone. Answers from another version of it are not meant; but where it is
 * gone, it is so for all that cite an earlier one.
 */
export function afterChange(turns, { document_id: id, state, at }, version) {
  const concerned = (citation) => citation.version === version || (state === "gone" && citation.state === "changed");
  return turns.map((turn) => marked(turn, (citation) => citation.document_id === id && concerned(citation), state, at));
}

function marked(turn, matches, state, at) {
  const rank = { live: 0, changed: 1, gone: 2 };
  const concerned = (citation) => matches(citation) && rank[state] > rank[citation.state];
  if (!turn.citations.some(concerned)) return turn;
  return { ...turn, citations: turn.citations.map((each) => (concerned(each) ? { ...each, state, at } : each)) };
}

/** The rows to be watched, by document: those that answers of this page stand on, the latest version of each. */
export function watchedRows(turns, most = 200) {
  const all = turns.filter((turn) => turn.phase === "answered").flatMap((turn) => turn.citations).filter((each) => each.version);
  const rows = new Map();
  for (const state of ["changed", "live"]) {
    for (const each of all) if (each.state === state) rows.set(each.document_id, each.version);
  }
  return new Map([...rows].slice(-most));
}

// Characters of the private use area: no text keeps them, so none can make a mark of its own.
const [BEGIN, END] = ["\uE000", "\uE001"];
const ANY_MARK = /[\uE000\uE001]/g;
export const MARK = /\uE000([cfu])([\d,]+)\uE001/;

const BLOCK = /^\s*(?:[-*+] |\d+[.)] |#{1,6} |\||>|```)/;

/** The sentences as one Markdown text, each with marks of its rows, its facts, and of what neither holds, behind it. */
export function markdownOf(sentences) {
  return sentences.reduce((text, each, index) => {
    const words = each.text.replace(ANY_MARK, "").trimEnd();
    const cited = each.citations?.length ? `${BEGIN}c${each.citations.join(",")}${END}` : "";
    const figures = each.facts?.length ? `${BEGIN}f${each.facts.join(",")}${END}` : "";
    const flag = each.unsupported?.length ? `${BEGIN}u${index}${END}` : "";
    return `${text}${text && (BLOCK.test(words) ? "\n" : " ")}${words}${cited}${figures}${flag}`;
  }, "");
}
