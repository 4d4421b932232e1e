// What a page cannot say in HTML: copying, dialogs, and tabs. No inline code, so the policy stays strict.
"use strict";

const say = (button, text) => {
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1500);
};

const copy = async (button) => {
  const text = document.getElementById(button.dataset.copy).innerText;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http on another host has no clipboard: select it, so that the keyboard can copy it
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    say(button, "Selected");
    return;
  }
  say(button, "Copied");
};

const showTab = (tab) => {
  for (const other of tab.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
};

// Each further part of a form has the next number in the names of its fields.
const addPart = (button) => {
  const number = Number(button.dataset.next);
  button.dataset.next = number + 1;
  const address = `${button.dataset.add}?index=${number}`;
  htmx.ajax("GET", address, { target: `#${button.dataset.into}`, swap: "beforeend" });
};

document.addEventListener("click", (event) => {
  const target = event.target.closest(
    "[data-copy], [data-open], [data-close], [data-add], [data-remove-grant], [role=tab]",
  );
  if (!target) return;
  if (target.dataset.copy) copy(target);
  else if (target.dataset.add) addPart(target);
  else if ("removeGrant" in target.dataset) target.closest("[data-grant]").remove();
  else if (target.dataset.open) document.getElementById(target.dataset.open).showModal();
  else if ("close" in target.dataset) target.closest("dialog").close();
  else showTab(target);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches?.("[data-submits]")) {
    event.target.form.requestSubmit();
    return;
  }
  const tab = event.target.closest?.("[role=tab]");
  if (!tab || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
  const step = event.key === "ArrowRight" ? 1 : tabs.length - 1;
  const next = tabs[(tabs.indexOf(tab) + step) % tabs.length];
  showTab(next);
  next.focus();
});

// A dialog that the server sends opens at once; what it showed is gone when it closes.
document.addEventListener("htmx:afterSwap", (event) => {
  for (const dialog of event.target.querySelectorAll("dialog[data-now]")) {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.dataset.after === "reload") location.reload();
    });
    dialog.showModal();
  }
});

// What went wrong belongs in the open dialog, which covers the place at the top of the page.
const placeOfErrors = () => {
  const dialog = [...document.querySelectorAll("dialog[open] > .stack")].at(-1);
  if (!dialog) return document.getElementById("wrong");
  const known = dialog.querySelector(":scope > .wrong-here");
  if (known) return known;
  const place = document.createElement("div");
  place.className = "wrong-here";
  place.setAttribute("role", "alert");
  dialog.querySelector("header").after(place);
  return place;
};

const sayWrong = (text) => {
  const banner = document.createElement("p");
  banner.className = "banner bad";
  banner.textContent = text;
  placeOfErrors().replaceChildren(banner);
};

document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "wrong") return;
  event.detail.target = placeOfErrors();
  if (event.detail.target.id === "wrong") scrollTo({ top: 0 });
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.verb === "get") return;
  for (const place of document.querySelectorAll("#wrong, .wrong-here")) place.replaceChildren();
  // below what went wrong, the answer to the question before would look like one to this
  if (event.detail.target.id === "answer") event.detail.target.replaceChildren();
});
document.addEventListener("htmx:responseError", () => sayWrong("The server failed on this; its log says why."));
document.addEventListener("htmx:sendError", () => sayWrong("The server does not answer."));

// On a phone the bar of pages scrolls: the one that is shown should be in sight.
document.querySelector(".side [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// The audit is live while its box is checked and someone looks.
for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(() => {
    const wanted = document.getElementById(part.dataset.live).checked && !document.hidden;
    if (wanted && !document.querySelector("dialog[open]")) htmx.trigger(part, "live");
  }, 2000);
}
