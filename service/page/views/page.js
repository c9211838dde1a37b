// The whole page: sign-in, or header, conversations, answers and the question's form.

import { Component, createRef, html } from "../html.js";
import { freshnessWords, moment } from "../words.js";
import { Dialogs } from "./dialogs.js";
import { Problem } from "./problem.js";
import { Sessions } from "./sessions.js";
import { SignIn } from "./sign_in.js";
import { Status } from "./status.js";
import { Turn } from "./turn.js";

export function Page({ store, state }) {
  return html`
    ${state.me && html`<a class="skip" href="#question" onClick=${toQuestion}>Skip to the question</a>`}
    ${body(store, state)}
    <${Status} announcement=${state.announcement} />
    <${Dialogs} store=${store} state=${state} />
  `;
}

function body(store, state) {
  if (state.signIn) return html`<${SignIn} store=${store} problem=${state.signIn.problem} />`;
  if (state.problem) return html`<${Away} store=${store} problem=${state.problem} />`;
  if (!state.me) return html`<main class="lone" aria-busy="true"><p class="soft">Connecting …</p></main>`;
  return html`
    <${Header} store=${store} state=${state} />
    <div class=${state.me.memory ? "columns" : "columns alone"}>
      ${state.me.memory &&
      html`<nav class="sidebar" aria-label="Conversations"><${Sessions} store=${store} state=${state} /></nav>`}
      <main>
        <${Turns} store=${store} state=${state} />
        <${Composer} store=${store} state=${state} />
      </main>
    </div>
  `;
}

function toQuestion(event) {
  event.preventDefault();
  document.getElementById("question")?.focus();
}

function Away({ store, problem }) {
  return html`
    <main class="lone">
      <h1>No connection</h1>
      <${Problem} alert problem=${problem} />
      <button class="primary" type="button" onClick=${() => store.start()}>Try again</button>
    </main>
  `;
}

function Header({ store, state }) {
  const { me, freshness, connection } = state;
  const { level, text } = freshnessWords(freshness, connection);
  const asOf = moment(freshness?.searchable_as_of);
  return html`
    <header>
      <h1>${me.pipeline}</h1>
      <p class="badge ${level}" title=${asOf ? `Every commit up to ${asOf} is searchable` : null}>
        <span class="dot" aria-hidden="true"></span><span class="unseen">Index: </span>${text}
      </p>
      <div class="actions">
        ${me.memory && html`<${Action} narrow does=${() => store.showSessions()}>Conversations<//>`}
        ${me.memory && me.user && html`<${Action} does=${() => store.openProfile()}>Profile<//>`}
        ${store.signedIn && html`<${Action} does=${() => store.signOut()}>Sign out<//>`}
      </div>
    </header>
  `;
}

function Action({ does, narrow, children }) {
  return html`<button class=${narrow ? "plain narrow" : "plain"} type="button" onClick=${does}>${children}</button>`;
}

class Turns extends Component {
  end = createRef();

  componentDidUpdate(before) {
    const [{ turns: then }, { turns: now }] = [before.state, this.props.state];
    if (now.length !== then.length) this.end.current?.scrollIntoView({ block: "end" });
    else if (now !== then && isAtEnd(this.seen)) this.end.current?.scrollIntoView({ block: "end" });
  }

  render({ store, state }) {
    this.seen = document.documentElement.scrollHeight - window.scrollY - window.innerHeight;
    if (state.turns.length === 0) return html`<${Welcome} state=${state} /><div ref=${this.end}></div>`;
    return html`
      <h2 class="unseen">Answers</h2>
      <ol class="turns">
        ${state.turns.map((turn) => html`<li key=${turn.id}><${Turn} store=${store} state=${state} turn=${turn} /></li>`)}
      </ol>
      <div class="end" ref=${this.end}></div>
    `;
  }
}

const isAtEnd = (pixels) => pixels < 160;

function Welcome({ state }) {
  return html`
    <div class="welcome">
      <h2>Ask ${state.me.pipeline}</h2>
      <p class="soft">Answers cite the rows they are taken from. When one of them changes, the answer says so.</p>
    </div>
  `;
}

class Composer extends Component {
  field = createRef();

  componentDidMount() {
    this.field.current.focus({ preventScroll: true });
  }

  send = (event) => {
    event.preventDefault();
    const { store } = this.props;
    const { value } = this.field.current;
    if (store.busy || !value.trim()) return;
    this.field.current.value = "";
    store.ask(value);
  };

  key = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    this.send(event);
  };

  render({ store, state }) {
    return html`
      <form class="composer" onSubmit=${this.send}>
        <label class="unseen" for="question">Your question</label>
        <textarea id="question" ref=${this.field} rows="1" maxlength="20000" placeholder="Ask a question" autocomplete="off"
          aria-describedby="keys" onKeyDown=${this.key}></textarea>
        <div class="sending">
          ${state.me.tables?.length > 1 && html`<${Tables} store=${store} state=${state} />`}
          <p id="keys" class="soft keys">Enter sends, Shift+Enter begins a line</p>
          ${store.busy
            ? html`<button class="secondary" type="button" onClick=${() => this.stop()}>Stop</button>`
            : html`<button class="primary" type="submit">Ask</button>`}
        </div>
      </form>
    `;
  }

  stop() {
    this.props.store.stop();
    this.field.current.focus();
  }
}

function Tables({ store, state }) {
  return html`
    <label class="tables"><span class="unseen">Search in</span>
      <select onChange=${(event) => store.searchIn(event.target.value)}>
        <option value="" selected=${state.tables === null}>All tables</option>
        ${state.me.tables.map(
          (table) => html`<option value=${table} selected=${state.tables?.[0] === table}>${table.split(".").pop()}</option>`,
        )}
      </select>
    </label>
  `;
}
