// What the page knows, and what a reader can do. Views show `state` and call the methods of this class; nothing else changes it.

import { Api, problemOf } from "./api.js";
import * as conversation from "./conversation.js";
import { Watch } from "./watch.js";
import { RESTARTED, rowName, staleWords } from "./words.js";

const KEY = "ragstream.key";

const blank = () => ({
  me: null, // null until the service has said who asks
  signIn: null, // {problem}: a key or token is needed
  problem: null, // what keeps the page from starting
  freshness: null,
  connection: "connecting",
  sessions: [],
  titles: {}, // the first questions of the conversations that this tab has seen
  session: null,
  turns: [],
  tables: null, // the tables that are searched; null: all
  dialog: null,
  announcement: "",
});

export class Store {
  #show;
  #watch = null;
  #asking = null;
  #shown = false;
  #rating = Promise.resolve();

  /** `show` draws the state; it is called once for all changes of a task. */
  constructor(show) {
    this.#show = show;
    this.state = blank();
    this.api = new Api(() => sessionStorage.getItem(KEY), (error) => this.#refused(error));
  }

  /** Say something to a screen reader. */
  announce(announcement) {
    this.set({ announcement });
  }

  set(change) {
    this.state = { ...this.state, ...change };
    if (this.#shown) return;
    this.#shown = true;
    queueMicrotask(() => {
      this.#shown = false;
      this.#show(this);
    });
  }

  // Who asks

  async start() {
    this.set({ problem: null });
    try {
      const me = await this.api.get("me");
      this.set({ me, signIn: null });
    } catch (error) {
      if (error.status !== 401) this.set({ problem: problemOf(error) });
      return;
    }
    this.#watch = new Watch(this.api, {
      state: (event, version) => this.#changed(event, version),
      freshness: (freshness) => this.set({ freshness }),
      connection: (connection) => connection !== this.state.connection && this.set({ connection }),
    });
    if (this.state.me.memory) await this.listSessions();
  }

  async signIn(key) {
    sessionStorage.setItem(KEY, key);
    await this.start();
  }

  /** Forget the key and everything that was shown. */
  signOut() {
    this.#clear({ signIn: { problem: null } });
  }

  get signedIn() {
    return sessionStorage.getItem(KEY) !== null;
  }

  #refused(error) {
    const problem = this.signedIn ? problemOf(error) : null;
    this.#clear({ signIn: { problem } });
  }

  #clear(change) {
    sessionStorage.removeItem(KEY);
    this.#asking?.abort();
    this.#watch?.close();
    this.#watch = this.#asking = null;
    this.set({ ...blank(), ...change });
  }

  // Questions

  get busy() {
    return this.#asking !== null;
  }

  async ask(question) {
    if (this.busy || !question.trim()) return;
    const { me, session } = this.state;
    if (me.memory && session === null) this.#begin(newName(), question.trim());
    const turn = conversation.asked(question.trim(), me.memory ? newName() : null);
    this.set({ turns: [...this.state.turns, turn], announcement: "Searching" });
    await this.#answer(turn);
  }

  #begin(session, title) {
    this.set({ session, titles: { ...this.state.titles, [session]: title } });
  }

  /** Ask a turn's question again, as a new turn. */
  async askAgain(turn) {
    await this.ask(turn.question);
  }

  /** Send a turn whose stream broke once more: the same turn, so that a kept answer is not made twice. */
  async resend(turn) {
    if (this.busy) return;
    const sent = { ...conversation.asked(turn.question, turn.turnId), id: turn.id };
    this.#put(sent);
    await this.#answer(sent);
  }

  stop() {
    this.#asking?.abort();
  }

  async #answer(turn) {
    const controller = new AbortController();
    this.#asking = controller;
    let [current, error] = [turn, null];
    try {
      await this.api.stream("ask", this.#request(turn), controller.signal, (name, data) => {
        if (controller.signal.aborted) return;
        current = conversation.afterEvent(current, name, data);
        this.#put(current);
        if (name === "restart") this.announce(RESTARTED);
      });
    } catch (failure) {
      error = failure.status ? problemOf(failure) : null;
    }
    if (this.#asking !== controller) return; // signed out
    this.#asking = null;
    current = conversation.ended(current, { stopped: controller.signal.aborted, error });
    this.#put(current);
    this.set({ announcement: announced(current) });
    this.#follow();
    if (this.state.me?.memory) await this.listSessions();
  }

  #request(turn) {
    const { session, tables } = this.state;
    return {
      question: turn.question,
      ...(turn.turnId && session ? { session, turn_id: turn.turnId } : {}),
      ...(tables ? { tables } : {}),
    };
  }

  #put(turn) {
    this.set({ turns: conversation.withTurn(this.state.turns, turn) });
  }

  searchIn(table) {
    this.set({ tables: table ? [table] : null });
  }

  // What changes under the answers

  #follow() {
    this.#watch?.follow(conversation.watchedRows(this.state.turns));
  }

  #changed(event, version) {
    const turns = conversation.afterChange(this.state.turns, event, version);
    const stale = turns.filter((turn, index) => turn !== this.state.turns[index]);
    if (stale.length === 0) return;
    const words = stale.map((turn) => `An answer is stale: ${staleWords(turn.citations).join("; ")}.`);
    this.set({ turns, announcement: [...new Set(words)].join(" ") });
  }

  /** Hold no connection for a page that nobody sees: a browser has few of them for all its tabs. */
  seen(visible) {
    if (visible) this.#watch?.reconnect();
    else this.#watch?.rest();
  }

  // Rows

  async openRow(citation) {
    this.set({ dialog: { kind: "row", citation, row: null, problem: null } });
    try {
      const row = await this.api.get(`rows/${encodeURIComponent(citation.document_id)}`);
      this.#inDialog("row", { row }, citation);
    } catch (error) {
      const gone = { message: `${rowName(citation)} is gone, or you may not see it.`, hint: "" };
      this.#inDialog("row", { problem: error.status === 404 ? gone : problemOf(error) }, citation);
    }
  }

  #inDialog(kind, change, citation = null) {
    const { dialog } = this.state;
    if (dialog?.kind !== kind || (citation !== null && dialog.citation !== citation)) return;
    this.set({ dialog: { ...dialog, ...change } });
  }

  closeDialog() {
    this.set({ dialog: null });
  }

  // Conversations

  async listSessions() {
    try {
      const { sessions } = await this.api.get("sessions");
      this.set({ sessions });
    } catch {
      // the list is a convenience: what is wrong is said where a question is asked
    }
  }

  showSessions() {
    this.set({ dialog: { kind: "sessions" } });
  }

  newSession() {
    this.#leave({ session: null, turns: [], announcement: "New conversation" });
  }

  async openSession(name) {
    this.#leave({ session: name, turns: [], dialog: null });
    try {
      const { exchanges } = await this.api.get(`sessions/${encodeURIComponent(name)}`);
      if (this.state.session !== name) return;
      if (exchanges.length > 0 && exchanges[0].turn === 1) this.#begin(name, exchanges[0].question);
      const announcement = `Conversation with ${exchanges.length} questions`;
      this.set({ turns: exchanges.map(conversation.remembered), announcement });
      this.#follow();
    } catch (error) {
      if (this.state.session === name) this.set({ session: null, announcement: problemOf(error).message });
    }
  }

  /** Returns whether it was deleted. */
  async deleteSession(name) {
    try {
      await this.api.delete(`sessions/${encodeURIComponent(name)}`);
    } catch (error) {
      this.set({ announcement: problemOf(error).message });
      return false;
    }
    if (this.state.session === name) this.newSession();
    this.set({ sessions: this.state.sessions.filter((each) => each.session !== name), announcement: "Conversation deleted" });
    return true;
  }

  #leave(change) {
    this.#asking?.abort();
    this.#asking = null;
    this.set(change);
    this.#follow();
  }

  // Profile

  async openProfile() {
    this.set({ dialog: { kind: "profile", profile: null, problem: null } });
    try {
      this.#inDialog("profile", { profile: await this.api.get("profile") });
    } catch (error) {
      this.#inDialog("profile", { problem: problemOf(error) });
    }
  }

  /** Returns whether it was saved. */
  async saveProfile(values, version) {
    try {
      await this.api.put("profile", { values, version });
      return true;
    } catch (error) {
      this.#inDialog("profile", { problem: problemOf(error) });
      return false;
    }
  }

  // Feedback

  /** Ratings are sent one after another, so that the last one is kept; only its outcome is shown. */
  async rate(turn, rating, comment = "") {
    const [before, sent] = [turn.rating, { rating, comment, saved: false, problem: null }];
    const { session } = this.state;
    this.#rated(turn, sent);
    const body = { session, turn: turn.number, rating, ...(comment ? { comment } : {}) };
    this.#rating = this.#rating.then(() => this.api.post("feedback", body)).then(
      () => ({ outcome: { ...sent, saved: true }, announcement: "Thank you, your rating is kept" }),
      (error) => ({ outcome: { ...(before ?? { rating: null, comment, saved: false }), problem: problemOf(error) } }),
    );
    const { outcome, announcement } = await this.#rating;
    if (this.state.turns.find((each) => each.id === turn.id)?.rating !== sent) return;
    this.#rated(turn, outcome);
    if (announcement) this.set({ announcement });
  }

  #rated(turn, rating) {
    this.set({ turns: this.state.turns.map((each) => (each.id === turn.id ? { ...each, rating } : each)) });
  }
}

function announced(turn) {
  switch (turn.phase) {
    case "answered":
      return turn.answer.abstained ? turn.answer.answer : `${turn.sentences.map((each) => each.text).join(" ")} ${sources(turn)}`;
    case "failed":
      return turn.error.message;
    case "broken":
      return "The connection broke before the answer was complete.";
    default:
      return "Stopped";
  }
}

function sources({ citations, facts }) {
  const count = citations.length + facts.length;
  return count === 1 ? "1 source." : `${count} sources.`;
}

/** A name that says when, and is nobody else's. It holds nothing of the question: names stand in addresses and logs. */
function newName() {
  const random = crypto.getRandomValues(new Uint8Array(6));
  const hex = [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${new Date().toISOString().slice(0, 19)}Z-${hex}`;
}
