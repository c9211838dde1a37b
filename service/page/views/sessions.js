// The list of conversations, in the side column and, where there is no room for it, in a dialog.

import { Component, createRef, html } from "../html.js";
import { moment } from "../words.js";

export class Sessions extends Component {
  state = { deleting: null };
  first = createRef();

  render({ store, state, done = () => {} }) {
    return html`
      <button class="secondary wide" type="button" ref=${this.first} onClick=${() => (store.newSession(), done())}>New conversation</button>
      ${state.sessions.length === 0
        ? html`<p class="soft">No conversation is kept yet.</p>`
        : html`<ul class="sessions">${state.sessions.map((each) => this.item(each, store, state, done))}</ul>`}
    `;
  }

  item({ session: name, turns, last_asked_at: at }, store, state, done) {
    const [when, title] = [moment(at, { withSeconds: false }), state.titles[name] ?? (isMade(name) ? null : name)];
    const shown = title ?? when;
    const asked = turns === 1 ? "1 question" : `${turns} questions`;
    const deleting = this.state.deleting === name;
    return html`
      <li key=${name} class=${name === state.session ? "current" : ""}>
        <button class="plain open" type="button" aria-current=${name === state.session ? "true" : null}
          onClick=${() => (store.openSession(name), done())}>
          <span>${shown}</span> <span class="soft">${title ? `${when}, ${asked}` : asked}</span>
        </button>
        <button class="plain delete" type="button" onClick=${() => this.delete(name, store)}
          onBlur=${() => this.setState({ deleting: null })}
          aria-label=${`${deleting ? "Really delete" : "Delete"} the conversation: ${shown}`}>
          ${deleting ? "Really?" : "Delete"}
        </button>
      </li>
    `;
  }

  async delete(name, store) {
    if (this.state.deleting !== name) {
      this.setState({ deleting: name });
      return;
    }
    this.setState({ deleting: null });
    if (await store.deleteSession(name)) this.first.current?.focus(); // the button that had the focus is gone
  }
}

/** Whether this page made the name, which then says nothing but a time. */
const isMade = (name) => /^\d{4}-\d\d-\d\dT[\d:]{8}Z-[0-9a-f]{12}$/.test(name);
