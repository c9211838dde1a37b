import { Component, createRef, html } from "../html.js";

export class Feedback extends Component {
  comment = createRef();

  render({ store, turn }) {
    const { rating, saved, problem, comment } = turn.rating ?? {};
    const button = (value, words) => html`
      <button class="plain rating" type="button" aria-pressed=${rating === value ? "true" : "false"}
        onClick=${() => store.rate(turn, value, comment ?? "")}>
        <span aria-hidden="true">${value === "up" ? "↑" : "↓"}</span> ${words}
      </button>
    `;
    return html`
      <div class="feedback" role="group" aria-label="Rate this answer">
        ${button("up", "Helpful")} ${button("down", "Not helpful")}
        ${problem && html`<p class="bad-text">${problem.message}</p>`}
        ${rating && html`
          <form onSubmit=${this.send}>
            <label class="unseen" for=${`${turn.id}-comment`}>Comment on this answer</label>
            <input id=${`${turn.id}-comment`} ref=${this.comment} maxlength="2000" autocomplete="off"
              placeholder="A comment, if you like" defaultValue=${comment ?? ""} />
            <button class="secondary" type="submit">Send</button>
            ${saved && html`<span class="soft">Kept</span>`}
          </form>
        `}
      </div>
    `;
  }

  send = (event) => {
    event.preventDefault();
    const { store, turn } = this.props;
    store.rate(turn, turn.rating.rating, this.comment.current.value.trim());
  };
}
