import { html } from "../html.js";

/** What is wrong and how to mend it. `alert` interrupts a screen reader, for what answers the reader's own last step. */
export function Problem({ problem, id, alert, children }) {
  return html`
    <div id=${id} class="note bad" role=${alert ? "alert" : null}>
      <p>${problem.message}</p>
      ${problem.hint && html`<p class="soft">${problem.hint}</p>`}
      ${children}
    </div>
  `;
}
