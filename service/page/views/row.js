// A cited row as it is now: its text, its metadata, and when it was committed and searchable.

import { Component, createRef, html } from "../html.js";
import { nodesOf } from "../markdown.js";
import { delay, moment } from "../words.js";
import { Problem } from "./problem.js";

export function Row({ citation, row, problem, turns }) {
  const state = stateOf(citation, turns);
  const cited = row?.chunks.length > 1 && state === "live" && row.version === citation.version ? citation.chunk_index : null;
  return html`
    ${state === "changed" && html`<div class="note warn"><p>This row has changed since the answer.</p></div>`}
    ${state === "gone" && !problem && html`<div class="note warn"><p>This row is gone since it was opened.</p></div>`}
    ${problem && html`<${Problem} alert problem=${problem} />`}
    ${!row && !problem && html`<p class="soft" aria-busy="true">Loading …</p>`}
    ${row && html`
      <dl class="times">
        <div><dt>Committed</dt><dd>${moment(row.committed_at) || "unknown"}</dd></div>
        <div><dt>Searchable</dt><dd>${searchable(row)}</dd></div>
      </dl>
      <div class="chunks">
        ${row.chunks.map((text, index) => html`<${Chunk} key=${index} text=${text} cited=${index === cited} />`)}
      </div>
      <h3>Row</h3>
      <dl class="columns-of-row">
        ${entries({ table: row.table, ...keyOf(row), ...row.metadata }).map(
          ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${shown(value)}</dd></div>`,
        )}
      </dl>
    `}
  `;
}

function searchable({ committed_at: committed, searchable_at: at }) {
  return delay(committed, at) || moment(at) || "unknown";
}

function stateOf({ document_id: id, version, state }, turns) {
  const same = turns.flatMap((turn) => turn.citations).find((each) => each.document_id === id && each.version === version);
  return same?.state ?? state;
}

const keyOf = ({ key }) => (key !== null && typeof key === "object" ? key : { key });
const entries = (values) => Object.entries(values).filter(([, value]) => value !== undefined);
const shown = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

class Chunk extends Component {
  root = createRef();

  componentDidMount() {
    this.root.current.replaceChildren(nodesOf(this.props.text));
    if (this.props.cited) this.root.current.parentElement.scrollIntoView({ block: "nearest" });
  }

  componentDidUpdate(before) {
    if (before.text !== this.props.text) this.root.current.replaceChildren(nodesOf(this.props.text));
  }

  render({ cited }) {
    return html`
      <div class=${cited ? "chunk cited" : "chunk"}>
        ${cited && html`<p class="label">Cited passage</p>`}
        <div class="prose" ref=${this.root}></div>
      </div>
    `;
  }
}
