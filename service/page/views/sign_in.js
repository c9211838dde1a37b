import { Component, createRef, html } from "../html.js";
import { Problem } from "./problem.js";

export class SignIn extends Component {
  field = createRef();

  componentDidMount() {
    this.field.current.focus();
  }

  submit = (event) => {
    event.preventDefault();
    const key = this.field.current.value.trim();
    this.field.current.value = "";
    if (key) this.props.store.signIn(key);
  };

  render({ problem }) {
    return html`
      <main class="lone">
        <h1>Sign in</h1>
        <form onSubmit=${this.submit}>
          <label for="key">Your key or token</label>
          <input id="key" ref=${this.field} type="password" required autocomplete="off" spellcheck="false"
            aria-describedby=${problem ? "key-problem" : "key-kept"} aria-invalid=${problem ? "true" : null} />
          ${problem && html`<${Problem} id="key-problem" alert problem=${problem} />`}
          <p id="key-kept" class="soft">It is kept in this tab until you sign out or close it.</p>
          <button class="primary" type="submit">Sign in</button>
        </form>
      </main>
    `;
  }
}
