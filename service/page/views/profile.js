// The profile's form, made from the fields that the pipeline declares.

import { html } from "../html.js";
import { Problem } from "./problem.js";

export function ProfileForm({ store, profile, problem, done }) {
  const said = problem && html`<${Problem} alert problem=${problem} />`;
  if (!profile) return said || html`<p class="soft" aria-busy="true">Loading …</p>`;
  const fields = Object.entries(profile.fields);
  if (fields.length === 0) return html`<p class="soft">This pipeline keeps no profile.</p>`;
  const submit = async (event) => {
    event.preventDefault();
    if (!(await store.saveProfile(valuesOf(event.target, profile.fields), profile.version))) return;
    done();
    store.announce("Profile saved"); // once the page is no longer behind the dialog
  };
  return html`
    <form class="profile" onSubmit=${submit}>
      ${fields.map(([name, field]) => html`<${Field} name=${name} field=${field} value=${profile.values[name]} />`)}
      ${said}
      <button class="primary" type="submit">Save</button>
    </form>
  `;
}

function Field({ name, field, value }) {
  const id = `profile-${name}`;
  return html`
    <div class="field">
      <label for=${id}>${name.replaceAll("_", " ")}</label>
      ${field.description && html`<p class="soft" id=${`${id}-about`}>${field.description}</p>`}
      ${control(id, name, field, value, field.description ? `${id}-about` : null)}
    </div>
  `;
}

const YES = { true: "yes", false: "no" };

function control(id, name, field, value, about) {
  const choices = field.type === "boolean" ? ["true", "false"] : field.choices;
  if (choices?.length) {
    return html`
      <select id=${id} name=${name} aria-describedby=${about}>
        <option value="">–</option>
        ${choices.map((each) => html`<option value=${each} selected=${String(value) === each}>${YES[each] ?? each}</option>`)}
      </select>
    `;
  }
  if (field.type === "text") {
    return html`
      <input id=${id} name=${name} type="text" maxlength=${field.max_length} defaultValue=${value ?? ""} autocomplete="off"
        aria-describedby=${about} />
    `;
  }
  return html`
    <input id=${id} name=${name} type="number" step=${field.type === "integer" ? "1" : "any"} min=${field.minimum}
      max=${field.maximum} defaultValue=${value ?? ""} aria-describedby=${about} />
  `;
}

/** The form's values in the types of the fields; an empty one removes the field. */
function valuesOf(form, fields) {
  const filled = Object.keys(fields).map((name) => [name, form.elements[name].value.trim()]).filter(([, text]) => text !== "");
  const typed = { boolean: (text) => text === "true", integer: Number, number: Number, text: String };
  return Object.fromEntries(filled.map(([name, text]) => [name, typed[fields[name].type](text)]));
}
