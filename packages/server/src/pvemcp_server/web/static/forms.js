// Forms: errors beside their fields, unsaved changes, and forms of a session that ended.
"use strict";

const selectedByDefault = (field) => {
  const index = [...field.options].findIndex((option) => option.defaultSelected);
  return Math.max(index, 0);
};
const isChanged = (field) => {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.type === "select-one") return field.selectedIndex !== selectedByDefault(field);
  return "defaultValue" in field && field.value !== field.defaultValue;
};
const changedFields = (form) => [...form.elements].filter((field) => field.name && field.type !== "hidden" && isChanged(field));
const labelOf = (field) => field.labels?.[0]?.textContent.trim() ?? field.name;

// Unsaved changes of a form with data-unsaved are announced in its bar, and the browser asks before it leaves them.
let isLeaving = false;
const unsaved = () => document.querySelectorAll("form[data-unsaved]");
const showUnsaved = (form) => {
  const bar = form.querySelector(".save-bar");
  if (!bar) return;
  const names = changedFields(form).map(labelOf);
  bar.classList.toggle("warn", names.length > 0);
  bar.querySelector("[data-unsaved-count]").textContent = names.length
    ? `${names.length} unsaved ${names.length === 1 ? "change" : "changes"}: ${names.join(", ")}`
    : "";
  bar.querySelector("[data-discard]").hidden = !names.length;
};
const keepAsSaved = (form) => {
  for (const field of form.elements) {
    if ("defaultChecked" in field) field.defaultChecked = field.checked;
    if ("defaultValue" in field) field.defaultValue = field.value;
    for (const option of field.options ?? []) option.defaultSelected = option.selected;
  }
  showUnsaved(form);
};
document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.matches("[data-unsaved]")) return;
  form.querySelector("[data-saved]")?.replaceChildren();
  showUnsaved(form);
});
document.addEventListener("click", (event) => {
  if (!event.target.matches("[data-discard]")) return;
  event.target.form.reset();
  showUnsaved(event.target.form);
  event.target.form.querySelector(".save-bar .primary").focus();
});
document.addEventListener("saved", (event) => keepAsSaved(event.target.closest("form")));
addEventListener("beforeunload", (event) => {
  if (!isLeaving && [...unsaved()].some((form) => changedFields(form).length)) event.preventDefault();
});

// An error that names a field of the form is shown beside it.
const fieldOf = (form, name) => {
  const quoted = CSS.escape(name);
  const field = form.querySelector(`[name="${quoted}"]:not([type=hidden]), [name="${quoted}[]"]:not([type=hidden])`);
  if (field) return field;
  const abouts = [...form.querySelectorAll("[data-about]")];
  return abouts.find((part) => part.dataset.about.split(" ").some((about) => name === about || name.startsWith(`${about}.`)));
};
const clearErrors = (form) => {
  for (const text of form.querySelectorAll(".wrong")) text.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    const described = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => !id.startsWith("wrong-"));
    if (described.join("")) field.setAttribute("aria-describedby", described.join(" "));
    else field.removeAttribute("aria-describedby");
  }
};
const showBeside = (field, message, number) => {
  const text = document.createElement("span");
  text.className = "wrong";
  text.id = `wrong-${number}`;
  text.textContent = message.charAt(0).toUpperCase() + message.slice(1);
  const isPart = field.matches("[data-about]");
  (isPart ? field : field.closest(".field, fieldset") ?? field.parentElement).append(text);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", [field.getAttribute("aria-describedby"), text.id].filter(Boolean).join(" "));
  for (let part = field.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
};
document.addEventListener("htmx:afterSwap", (event) => {
  const errors = [...event.target.querySelectorAll("[data-field]")];
  const form = event.detail.requestConfig.elt.closest("form");
  if (!errors.length || !form) return;
  clearErrors(form);
  const placed = errors.map((error) => [error, fieldOf(form, error.dataset.field)]).filter(([, field]) => field);
  placed.forEach(([error, field], number) => {
    showBeside(field, error.dataset.message, number);
    error.remove();
  });
  if (!placed.length) return;
  if (!event.target.querySelector("[data-field]")) event.target.replaceChildren();
  const [, first] = placed[0];
  const focused = first.matches("[data-about]") ? first.querySelector("input, select, textarea, button") ?? first : first;
  focused.focus();
  document.getElementById("wrong-0").scrollIntoView({ block: "center" });
});
document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.detail.requestConfig.verb !== "get" && event.target.closest("form");
  if (form && !event.target.matches("[hx-trigger]")) clearErrors(form);
});

// When the session has ended, the entries wait for the next sign-in of the same account. Secrets are not kept.
const KEPT = "pvemcp-kept";
const LIFE = 60 * 60 * 1000; // milliseconds
const page = location.pathname + location.search;
const account = document.querySelector("[data-account]")?.dataset.account;
const isSecret = (field) => field.type === "password" || field.autocomplete === "one-time-code" || /secret|password/.test(field.name);
const nameOfForm = (form) => form.getAttribute("hx-post") ?? form.getAttribute("action");
const keepForms = () => {
  const fields = [...document.forms].flatMap((form) =>
    changedFields(form).filter((field) => !isSecret(field)).map((field) => ({
      form: nameOfForm(form),
      name: field.name,
      value: field.value,
      checked: field.checked,
      isChoice: field.type === "checkbox" || field.type === "radio",
    })));
  const dialogs = [...document.querySelectorAll("dialog[open]:not(#asking)")].map(({ id, dataset }) => ({ id, from: dataset.from }));
  const grants = [...document.querySelectorAll("[data-grant]")].map((grant) => Number(grant.dataset.grant));
  if (!fields.length) return;
  sessionStorage.setItem(KEPT, JSON.stringify({ page, account, at: Date.now(), fields, dialogs, grants }));
};
document.addEventListener("htmx:beforeOnLoad", (event) => {
  const { xhr } = event.detail;
  const target = xhr.getResponseHeader("HX-Redirect");
  if (event.defaultPrevented) return;
  const hasEnded = target?.includes("/sign-in?");
  if (hasEnded && event.target.matches("[hx-trigger]") && [...document.forms].some((form) => changedFields(form).length)) {
    event.preventDefault(); // a request of the page's own must not interrupt the typing
    showError("Your session has ended. Go on: saving leads to the sign-in, and what you entered is kept.");
    return;
  }
  if (target || xhr.getResponseHeader("HX-Refresh")) isLeaving = true;
  if (hasEnded) keepForms();
});

const restoreGrants = async (numbers) => {
  for (const grant of document.querySelectorAll("[data-grant]")) {
    if (!numbers.includes(Number(grant.dataset.grant))) grant.remove();
  }
  const button = document.querySelector("[data-add]");
  for (const number of numbers) {
    if (!button || document.querySelector(`[data-grant="${number}"]`)) continue;
    button.dataset.next = number;
    await addPart(button);
  }
};
const restoreField = ({ form, name, value, checked, isChoice }) => {
  for (const candidate of document.forms) {
    if (nameOfForm(candidate) !== form) continue;
    for (const field of candidate.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (!isChoice) field.value = value;
      else if (field.value === value) field.checked = checked;
      else continue;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
};
const restore = async (kept) => {
  sessionStorage.removeItem(KEPT);
  for (const { id, from } of kept.dialogs) {
    if (from) await htmx.ajax("GET", from, { target: "#dialog", swap: "innerHTML" });
    else if (id) document.getElementById(id)?.showModal();
  }
  await restoreGrants(kept.grants);
  for (const field of kept.fields) restoreField(field);
  showNotice("You are signed in again, and what you entered is back. Passwords and other secrets are not kept.");
};
// htmx starts with DOMContentLoaded
document.addEventListener("DOMContentLoaded", () => {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  for (const text of document.querySelectorAll("[data-kept]")) text.hidden = !kept;
  if (!kept || !account) return; // not signed in yet
  if (kept.account !== account || Date.now() - kept.at > LIFE || (kept.isOnItsWay && kept.page !== page)) {
    sessionStorage.removeItem(KEPT);
  } else if (kept.page === page) {
    restore(kept);
  } else {
    sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, isOnItsWay: true }));
    location.replace(kept.page);
  }
});
