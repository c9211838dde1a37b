// Dialogs are the browser's own: it keeps the focus inside, closes them by Esc, and gives the focus back.

import { Component, createRef, html } from "../html.js";
import { ProfileForm } from "./profile.js";
import { Row } from "./row.js";
import { Sessions } from "./sessions.js";
import { Status } from "./status.js";
import { rowName } from "../words.js";

export function Dialogs({ store, state }) {
  const { dialog, announcement } = state;
  const close = () => store.closeDialog();
  const common = { announcement, onClose: close };
  switch (dialog?.kind) {
    case "row":
      return html`<${Dialog} key=${`row ${dialog.citation.document_id}`} side title=${rowName(dialog.citation)} ...${common}>
        ${() => html`<${Row} ...${dialog} turns=${state.turns} />`}
      <//>`;
    case "profile":
      return html`<${Dialog} key="profile" title="Your profile" ...${common}>
        ${(done) => html`<${ProfileForm} store=${store} ...${dialog} done=${done} />`}
      <//>`;
    case "sessions":
      return html`<${Dialog} key="sessions" title="Conversations" ...${common}>
        ${(done) => html`<${Sessions} store=${store} state=${state} done=${done} />`}
      <//>`;
    default:
      return null;
  }
}

class Dialog extends Component {
  dialog = createRef();
  before = this.props.announcement; // it was said already

  componentDidMount() {
    this.dialog.current.showModal();
  }

  componentWillUnmount() {
    this.dialog.current?.close();
  }

  close = () => this.dialog.current.close();

  onBackdrop = (event) => {
    if (event.target === this.dialog.current) this.close();
  };

  // What stands behind the dialog, its live region too, is not there for a screen reader: so there is another one inside.
  render({ title, side, children, onClose, announcement }) {
    if (announcement !== this.before) this.before = null;
    return html`
      <dialog ref=${this.dialog} class=${side ? "side" : ""} aria-labelledby="dialog-title" onClose=${onClose}
        onClick=${this.onBackdrop}>
        <div class="inside">
          <div class="head">
            <h2 id="dialog-title" tabindex="-1" autofocus>${title}</h2>
            <button class="plain close" type="button" onClick=${this.close}>Close</button>
          </div>
          ${children(this.close)}
          <${Status} announcement=${this.before === null ? announcement : ""} />
        </div>
      </dialog>
    `;
  }
}
