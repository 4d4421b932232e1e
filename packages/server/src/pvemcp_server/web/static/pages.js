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

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-copy], [data-open], [data-close], [role=tab]");
  if (!target) return;
  if (target.dataset.copy) copy(target);
  else if (target.dataset.open) document.getElementById(target.dataset.open).showModal();
  else if ("close" in target.dataset) target.closest("dialog").close();
  else showTab(target);
});

document.addEventListener("keydown", (event) => {
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
