// Preact and htm, bound once: what every view is written with.

import { h } from "./vendor/preact/preact.mjs";
import htm from "./vendor/htm/htm.module.js";

export { Component, createRef, render } from "./vendor/preact/preact.mjs";
export const html = htm.bind(h);
