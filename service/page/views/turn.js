// One question with its answer: sentences with marks of citation, sources, facts, what has changed since, and a rating.

import { isRewritten, isStale } from "../conversation.js";
import { html } from "../html.js";
import { moment, RESTARTED, rowName, staleWords } from "../words.js";
import { Feedback } from "./feedback.js";
import { Problem } from "./problem.js";
import { Prose } from "./prose.js";

export function Turn({ store, state, turn }) {
  const stale = isStale(turn);
  return html`
    <article class=${stale ? "turn stale" : "turn"} aria-labelledby=${`${turn.id}-question`}>
      <h3 class="question" id=${`${turn.id}-question`}><span class="unseen">Question: </span>${turn.question}</h3>
      <div class="answer" aria-busy=${turn.phase === "asking" ? "true" : "false"}>
        ${stale && html`<${Stale} store=${store} turn=${turn} />`}
        ${isRewritten(turn) && html`<p class="soft searched">Searched as: ${turn.standalone}</p>`}
        <${Said} store=${store} turn=${turn} />
        ${turn.citations.length > 0 && html`<${Sources} store=${store} turn=${turn} />`}
        ${turn.facts.map((fact) => html`<${Fact} key=${fact.number} id=${idOf(turn, fact)} fact=${fact} />`)}
        <${Outcome} store=${store} turn=${turn} />
        ${isKept(turn, state) && html`<${Feedback} store=${store} turn=${turn} />`}
      </div>
    </article>
  `;
}

const isKept = (turn, { me }) => turn.phase === "answered" && me.memory && turn.number !== null;

function Said({ store, turn }) {
  if (turn.sentences.length > 0) {
    const open = (citation) => store.openRow(citation);
    const show = (fact) => document.getElementById(idOf(turn, fact))?.focus();
    const { sentences, citations, facts } = turn;
    return html`<${Prose} ...${{ sentences, citations, facts }} onCitation=${open} onFact=${show} />`;
  }
  if (turn.phase === "asking") {
    const text = turn.restarted ? RESTARTED : "Searching";
    return html`<p class="soft searching">${text}<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span></p>`;
  }
  if (turn.phase === "answered" && (turn.answer.abstained || turn.facts.length === 0)) {
    return html`<p class="refusal">${turn.answer.answer}</p>`;
  }
  return null;
}

function Sources({ store, turn }) {
  return html`
    <div class="sources">
      <h4>Sources</h4>
      <ul>
        ${turn.citations.map(
          (citation) => html`
            <li key=${citation.number}>
              <button class="source ${citation.state}" type="button" onClick=${() => store.openRow(citation)}>
                <span class="number">${citation.number}</span><span class="unseen">: </span>${rowName(citation)}
                ${citation.state !== "live" && html`<span class="state">${citation.state}</span>`}
              </button>
            </li>
          `,
        )}
      </ul>
    </div>
  `;
}

const idOf = (turn, fact) => `${turn.id}-fact-${fact.number}`;

const shown = (value) => (value === null ? "–" : String(value));

function Fact({ id, fact }) {
  const asOf = moment(fact.loaded_at);
  const asked = Object.entries(fact.parameters ?? {}).map(([name, value]) => `${name}: ${value}`);
  return html`
    <figure class="fact" id=${id} tabindex="-1">
      <figcaption>
        <span class="number">F${fact.number}</span> ${fact.description ?? fact.fact.replaceAll("_", " ")}
        <span class="soft"> ${["from the warehouse", asOf && `as of ${asOf}`, ...asked].filter(Boolean).join(", ")}</span>
      </figcaption>
      <div class="scrolling" tabindex="0" role="group" aria-label=${`Table of figure ${fact.number}`}>
        <table>
          <thead><tr>${fact.columns.map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
          <tbody>${fact.rows.map((row) => html`<tr>${row.map((value) => html`<td>${shown(value)}</td>`)}</tr>`)}</tbody>
        </table>
      </div>
      ${fact.truncated && html`<p class="soft">There are more rows.</p>`}
    </figure>
  `;
}

function Stale({ store, turn }) {
  return html`
    <div class="note warn">
      <p><strong>This answer is stale.</strong></p>
      <ul>${staleWords(turn.citations).map((words) => html`<li>${words}</li>`)}</ul>
      <${Again} store=${store} turn=${turn} />
    </div>
  `;
}

function Outcome({ store, turn }) {
  const again = html`<${Again} store=${store} turn=${turn} />`;
  switch (turn.phase) {
    case "failed":
      return html`<${Problem} problem=${turn.error}>${again}<//>`;
    case "broken":
      return html`
        <div class="note bad">
          <p>The connection broke before the answer was complete.</p>
          <button class="secondary" type="button" disabled=${store.busy} onClick=${() => resend(store, turn)}>Try again</button>
        </div>
      `;
    case "stopped":
      return html`<div class="note"><p>You stopped this answer.</p>${again}</div>`;
    case "elsewhere":
      return html`<div class="note"><p>This question is being answered elsewhere.</p></div>`;
    case "unanswered":
      return html`<div class="note"><p>This question was not answered.</p>${again}</div>`;
    default:
      return null;
  }
}

function Again({ store, turn }) {
  const ask = () => askAgain(store, turn);
  return html`<button class="secondary" type="button" disabled=${store.busy} onClick=${ask}>Ask again</button>`;
}

// The button may go with the answer: the focus waits where the next question is written.
function askAgain(store, turn) {
  store.askAgain(turn);
  document.getElementById("question").focus({ preventScroll: true });
}

function resend(store, turn) {
  store.resend(turn);
  document.getElementById("question").focus({ preventScroll: true });
}
