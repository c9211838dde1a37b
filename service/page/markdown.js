// Markdown of answers and rows as nodes. No link, no image, no HTML of theirs: a renderer that writes them as text, then an
// allow list of elements without attributes.

import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import { Marked } from "./vendor/marked/marked.esm.js";

const ELEMENTS = [
  "b", "blockquote", "br", "code", "del", "em", "hr", "li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead",
  "tr", "ul",
];
const LONG = 50_000;

const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: {
    html: ({ text }) => escaped(text),
    heading({ tokens }) {
      return `<p><strong>${this.parser.parseInline(tokens)}</strong></p>`;
    },
    link({ href, tokens, text }) {
      const shown = this.parser.parseInline(tokens);
      return text === href || `mailto:${text}` === href ? shown : `${shown} (${escaped(href)})`;
    },
    image: ({ href, text }) => escaped(`${text} (${href})`),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** The nodes of a text; one that is too long to be parsed while a reader waits stays as it is. */
export function nodesOf(text) {
  if (text.length > LONG) {
    const plain = document.createElement("pre");
    plain.textContent = text;
    return plain;
  }
  return DOMPurify.sanitize(marked.parse(text), {
    ALLOWED_TAGS: ELEMENTS,
    ALLOWED_ATTR: [],
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}
