// Copying, dialogs, tabs and passkeys. There is no inline code, so that the Content-Security-Policy stays strict.
"use strict";

const showLabel = (button, text) => {
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
    // Without https there is no clipboard API: select the text, so that the keyboard can copy it
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    showLabel(button, "Selected");
    return;
  }
  showLabel(button, "Copied");
};

const showTab = (tab) => {
  for (const other of tab.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
};

// The field names of each further part of a form contain the next number.
const addPart = (button) => {
  const number = Number(button.dataset.next);
  button.dataset.next = number + 1;
  const address = `${button.dataset.add}?index=${number}`;
  return htmx.ajax("GET", address, { target: `#${button.dataset.into}`, swap: "beforeend" });
};

const passkeyProblem = (error, noun) => {
  if (!globalThis.PublicKeyCredential?.parseRequestOptionsFromJSON) return `This browser cannot use a ${noun}.`;
  if (error.name === "NotAllowedError") return `No ${noun} was used: it was cancelled, or took too long.`;
  if (error.name === "InvalidStateError") return `This device has a ${noun} of yours already.`;
  return `The browser used no ${noun}: ${error.message}`;
};

// A form with data-passkey asks the browser for a passkey, which messages call data-noun, and sends the answer as its
// credential.
const usePasskey = async (form) => {
  const problem = form.querySelector("[role=alert]");
  problem.hidden = true;
  try {
    const options = JSON.parse(form.dataset.options);
    const publicKey = form.dataset.passkey === "create"
      ? PublicKeyCredential.parseCreationOptionsFromJSON(options)
      : PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
    form.elements.credential.value = JSON.stringify(credential);
  } catch (error) {
    problem.textContent = passkeyProblem(error, form.dataset.noun ?? "passkey");
    problem.hidden = false;
    return;
  }
  form.requestSubmit();
};

document.addEventListener("click", (event) => {
  const target = event.target.closest(
    "[data-copy], [data-open], [data-use-passkey], [data-close], [data-agree], [data-add], [data-remove-grant], [data-retry], [role=tab]",
  );
  if (!target) return;
  if (target.dataset.copy) copy(target);
  else if (target.dataset.add) addPart(target);
  else if ("usePasskey" in target.dataset) usePasskey(target.form);
  else if ("retry" in target.dataset) sendAgain();
  else if ("removeGrant" in target.dataset) target.closest("[data-grant]").remove();
  else if (target.dataset.open) document.getElementById(target.dataset.open).showModal();
  else if ("agree" in target.dataset) agree();
  else if ("close" in target.dataset) closeDialog(target.closest("dialog"));
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

// A browser leaves what has the focus where it is if a part of it is in view, and knows of no bar in front of it.
// The latter is the scroll-padding of the style.
document.addEventListener("focusin", (event) => {
  const target = event.target;
  if (!target.matches(":focus-visible") || target.offsetHeight > innerHeight / 2) return;
  target.scrollIntoView({ block: "nearest", inline: "nearest" });
});

// A dialog with data-once shows what is never shown again: only its own button closes it.
const isStored = (dialog) => !("once" in dialog.dataset) || "stored" in dialog.dataset;
const closeDialog = (dialog) => {
  dialog.dataset.stored = "";
  dialog.close();
};
const holdOpen = (dialog) => {
  const hint = dialog.querySelector(".once-hint");
  hint.textContent = `This is shown only now. Press "${dialog.querySelector("[data-close]").textContent}" to close.`;
};
document.addEventListener("keydown", (event) => {
  const dialog = event.key === "Escape" && [...document.querySelectorAll("dialog[open]")].at(-1);
  if (!dialog || isStored(dialog)) return;
  event.preventDefault(); // before the browser asks the dialog, which can refuse only once
  holdOpen(dialog);
});
addEventListener("beforeunload", (event) => {
  if ([...document.querySelectorAll("dialog[open]")].some((dialog) => !isStored(dialog))) event.preventDefault();
});

// A dialog in a response opens at once and is removed when it closes.
document.addEventListener("htmx:afterSwap", (event) => {
  for (const dialog of event.target.querySelectorAll("dialog[data-now]")) {
    const opener = document.activeElement;
    const { verb, path } = event.detail.requestConfig;
    if (verb === "get") dialog.dataset.from = path;
    dialog.addEventListener("cancel", (cancelled) => {
      if (isStored(dialog)) return;
      cancelled.preventDefault();
      holdOpen(dialog);
    });
    dialog.addEventListener("close", () => {
      if (!isStored(dialog)) {
        dialog.showModal();
        return;
      }
      dialog.remove();
      if (dialog.dataset.after !== "reload") {
        // a poll that was under way when the dialog opened has replaced the opener, to which the browser returns
        if (!opener.isConnected) (document.getElementById(opener.id) ?? document.getElementById("main")).focus();
        return;
      }
      rememberFocus(opener);
      location.reload();
    });
    dialog.showModal();
  }
});

// hx-confirm asks in a dialog of our own: the question is its title, its button says what it does.
let asked;
const ask = (question, { elt, triggeringEvent, issueRequest }) => {
  const dialog = document.getElementById("asking");
  const button = triggeringEvent?.submitter ?? elt;
  const end = question.indexOf("?") + 1;
  dialog.querySelector("h2").textContent = question.slice(0, end) || "Are you sure?";
  dialog.querySelector("p").textContent = question.slice(end).trim();
  const agreeing = dialog.querySelector("[data-agree]");
  agreeing.textContent = button.textContent.trim();
  agreeing.className = button.classList.contains("danger") ? "danger" : "primary";
  asked = issueRequest;
  dialog.showModal();
};
const agree = () => {
  document.getElementById("asking").close(); // the focus returns to the button before it is sent
  asked(true);
};
// A setting with data-ask is asked about when it is switched off.
const questionOf = ({ question, elt }) => {
  const setting = elt.querySelector?.("select[data-ask]");
  return setting?.value === "false" && setting.querySelector("[selected]")?.value === "true" ? setting.dataset.ask : question;
};

// The focus after a reload: on the same button, else on what is nearest to where it was.
const FOCUS = "pvemcp-focus";
const nameOf = (element) => element.id || element.getAttribute("aria-label") || element.textContent.trim();
const rememberFocus = (element) => {
  const opener = document.querySelector(`[data-open="${element.closest("dialog")?.id}"]`);
  if (opener) element = opener;
  const place = element.closest("tr, li, article, section, .card") ?? element;
  const near = [place, place.nextElementSibling, place.previousElementSibling].filter(Boolean);
  const others = near.flatMap((part) => [...part.querySelectorAll("button, a")]);
  sessionStorage.setItem(FOCUS, JSON.stringify([element, ...others].map(nameOf)));
};
const focusNearest = (names) => {
  const visible = [...document.querySelectorAll("main button, main a")].filter((each) => each.offsetParent);
  const present = new Map(visible.map((each) => [nameOf(each), each]));
  const found = names.map((name) => present.get(name)).find(Boolean);
  (found ?? document.getElementById("main"))?.focus();
};
document.addEventListener("htmx:beforeOnLoad", (event) => {
  const { xhr } = event.detail;
  // a poll of a session that ended must not take what is shown only once away
  if (xhr.getResponseHeader("HX-Redirect") && event.target.closest("dialog[data-once]")) event.preventDefault();
  if (xhr.getResponseHeader("HX-Refresh")) rememberFocus(event.detail.elt);
});
document.addEventListener("htmx:afterSettle", (event) => {
  const isRemoved = !event.detail.requestConfig.elt.isConnected;
  if (isRemoved && document.activeElement === document.body) document.getElementById("main")?.focus();
});
// A button that is disabled during its request loses the focus.
const focusBefore = new WeakMap();
document.addEventListener("htmx:beforeRequest", (event) => focusBefore.set(event.detail.xhr, document.activeElement));
document.addEventListener("htmx:afterRequest", (event) => {
  if (document.activeElement === document.body) focusBefore.get(event.detail.xhr)?.focus({ preventScroll: true });
});
const remembered = sessionStorage.getItem(FOCUS);
sessionStorage.removeItem(FOCUS);
if (remembered) focusNearest(JSON.parse(remembered));

// Before it has settled, htmx does not send the form of a response yet.
const startPasskeys = (part) => {
  for (const form of part.querySelectorAll("[data-passkey][data-start]")) usePasskey(form);
};
document.addEventListener("htmx:afterSettle", (event) => startPasskeys(event.target));
startPasskeys(document);

// Errors are shown in the open dialog, since it covers the banner at the top of the page.
const errorTarget = () => {
  const dialog = [...document.querySelectorAll("dialog[open] > .stack")].at(-1);
  if (!dialog) return document.getElementById("errors");
  const existing = dialog.querySelector(":scope > .errors-here");
  if (existing) return existing;
  const place = document.createElement("div");
  place.className = "errors-here";
  place.setAttribute("role", "alert");
  dialog.querySelector("header").after(place);
  return place;
};

const showBanner = (kind, text) => {
  const banner = document.createElement("p");
  banner.className = `banner ${kind}`;
  banner.textContent = text;
  errorTarget().replaceChildren(banner);
};
const showError = (text) => showBanner("bad", text);
const showNotice = (text) => showBanner("good", text);

document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "errors") return;
  event.detail.target = errorTarget();
  if (event.detail.target.id === "errors") scrollTo({ top: 0 });
});
// A poll would remove the button whose request waits for the answer of an open dialog.
document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = event.target.getAttribute("hx-trigger")?.includes("every ") && !event.target.closest("dialog");
  if (polls && document.querySelector("dialog[open]")) event.preventDefault();
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.verb === "get") return;
  for (const place of document.querySelectorAll("#errors, .errors-here")) place.replaceChildren();
  // below an error, the previous answer would look like the answer to this request
  if (event.detail.target.id === "answer") event.detail.target.replaceChildren();
});
document.addEventListener("htmx:responseError", () => showError("The server failed on this request; its log says why."));
document.addEventListener("htmx:sendError", () => showError("The server does not answer."));

// "Confirm it's you": the answer to a request of weight is a dialog. The request is kept, with the
// form or button that it came from, and sent again once the administrator has confirmed.
const requests = new WeakMap();
let waiting;
const sendAgain = () => {
  document.querySelector("#confirmation dialog")?.close();
  waiting?.(true); // without asking hx-confirm's question a second time
};
document.addEventListener("htmx:confirm", (event) => {
  requests.set(event.detail.elt, event.detail.issueRequest);
  const question = questionOf(event.detail);
  if (!question) return;
  event.preventDefault();
  ask(question, event.detail);
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "confirmation") waiting = requests.get(event.detail.requestConfig.elt);
});
document.addEventListener("confirmed", sendAgain);

// A field of several names: each suggestion is the text so far with the next name.
document.addEventListener("input", (event) => {
  if (!event.target.matches?.("[data-words][list]") || !event.target.list) return;
  const before = event.target.value.replace(/\S*$/, "");
  for (const option of event.target.list.options) {
    option.dataset.name ??= option.value;
    option.value = before + option.dataset.name;
  }
});

// On a phone the navigation scrolls: bring the current page into view.
document.querySelector(".side [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// The audit is polled while its box is checked and the page is visible.
for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(() => {
    const active = document.getElementById(part.dataset.live).checked && !document.hidden;
    if (active && !document.querySelector("dialog[open]")) htmx.trigger(part, "live");
  }, 2000);
}
