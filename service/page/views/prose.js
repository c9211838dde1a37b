// An answer's sentences as nodes, each mark of citation a button. The nodes are made anew only when the text has changed: a
// mark that turns stale keeps its button, and the reader's focus.

import { markdownOf, MARK } from "../conversation.js";
import { Component, createRef, html } from "../html.js";
import { nodesOf } from "../markdown.js";
import { rowName } from "../words.js";

export class Prose extends Component {
  root = createRef();

  componentDidMount() {
    this.fill();
  }

  componentDidUpdate(before) {
    const [then, now] = [before.sentences, this.props.sentences];
    if (then !== now && markdownOf(then) !== markdownOf(now)) this.fill();
    else this.label();
  }

  fill() {
    const root = this.root.current;
    const focused = root.contains(document.activeElement) ? document.activeElement.textContent : null;
    root.replaceChildren(nodesOf(markdownOf(this.props.sentences)));
    for (const text of textsOf(root)) this.mark(text);
    this.label();
    if (focused) [...root.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  }

  /** Replace the marks in a text by buttons, and by flags of what no row supports. */
  mark(text) {
    for (let rest = text, found; (found = MARK.exec(rest.data)); ) {
      const tail = rest.splitText(found.index);
      tail.deleteData(0, found[0].length);
      const numbers = found[2].split(",").map(Number);
      tail.before(...numbers.map((number) => this.made[found[1]](number)));
      rest = tail;
    }
  }

  made = { c: citationOf, f: factOf, u: (number) => flagOf(this.props.sentences[number]) };

  label() {
    for (const button of this.root.current.querySelectorAll("button[data-fact]")) {
      const fact = this.fact(button);
      button.hidden = !fact;
      if (fact) button.setAttribute("aria-label", `Figure F${fact.number}: ${fact.description ?? fact.fact}`);
    }
    for (const button of this.root.current.querySelectorAll("button[data-number]")) {
      const citation = this.citation(button);
      button.hidden = !citation;
      if (!citation) continue;
      button.className = `cite ${citation.state}`;
      const state = citation.state === "live" ? "" : `, ${citation.state}`;
      button.setAttribute("aria-label", `Source ${citation.number}: ${rowName(citation)}${state}`);
    }
  }

  citation(button) {
    return this.props.citations.find((each) => String(each.number) === button.dataset.number);
  }

  fact(button) {
    return this.props.facts.find((each) => String(each.number) === button.dataset.fact);
  }

  clicked = (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.number) this.props.onCitation(this.citation(button));
    if (button?.dataset.fact) this.props.onFact(this.fact(button));
  };

  render() {
    return html`<div class="prose" ref=${this.root} onClick=${this.clicked}></div>`;
  }
}

function textsOf(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  return texts;
}

function citationOf(number) {
  const button = buttonOf(String(number));
  button.dataset.number = String(number);
  return button;
}

function factOf(number) {
  const button = buttonOf(`F${number}`);
  button.dataset.fact = String(number);
  button.className = "cite";
  return button;
}

function buttonOf(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  return button;
}

function flagOf(sentence) {
  const flag = document.createElement("span");
  flag.className = "unsupported";
  flag.textContent = `not in the rows: ${sentence.unsupported.join(", ")}`;
  return flag;
}
