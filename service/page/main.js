import { html, render } from "./html.js";
import { Store } from "./store.js";
import { Page } from "./views/page.js";

const root = document.getElementById("page");
const store = new Store((shown) => {
  document.title = shown.state.me ? `${shown.state.me.pipeline} – ragstream` : "ragstream";
  render(html`<${Page} store=${shown} state=${shown.state} />`, root);
});

document.addEventListener("visibilitychange", () => store.seen(document.visibilityState === "visible"));
window.addEventListener("online", () => store.seen(true));
store.start();
