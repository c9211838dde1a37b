import { html } from "../html.js";

/** What a screen reader says of what happens elsewhere than where the reader is. */
export function Status({ announcement }) {
  return html`<p class="unseen" role="status" aria-live="polite">${announcement}</p>`;
}
