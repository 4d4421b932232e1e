// Times in the browser's zone, and parts of a page that the server sends again when they change.
"use strict";

{ // names of its own, whatever other scripts of the page declare
const two = (number) => String(number).padStart(2, "0");
const FORMS = {
  hour: (at) => `${two(at.getHours())}:${two(at.getMinutes())}`,
  day: (at) => `${two(at.getMonth() + 1)}-${two(at.getDate())}`,
  moment: (at) => `${at.getFullYear()}-${FORMS.day(at)} ${FORMS.hour(at)}:${two(at.getSeconds())}`,
};
// Each <time data-local="moment"> shows its local time, and UTC on hover.
const showLocalTimes = (part) => {
  for (const time of part.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    time.title = time.dateTime;
    time.textContent = FORMS[time.dataset.local](at);
  }
  for (const title of part.querySelectorAll("[data-local-title]")) {
    const at = new Date(title.dataset.localTitle);
    title.textContent = `${FORMS.moment(at)}: ${title.textContent}`;
    title.parentElement.setAttribute("aria-label", title.textContent);
    title.removeAttribute("data-local-title");
  }
};
document.addEventListener("htmx:afterSwap", (event) => showLocalTimes(event.target));
showLocalTimes(document);

// Fields for a time take it in the browser's zone, and send it with its zone.
for (const field of document.querySelectorAll("input[data-zoned]")) {
  field.labels[0].querySelector("[data-zone]").textContent = "";
  if (field.value) {
    const at = new Date(`${field.value}Z`);
    field.value = `${at.getFullYear()}-${FORMS.day(at)}T${FORMS.hour(at)}`;
  }
  field.form.addEventListener("formdata", ({ formData }) => {
    if (field.value) formData.set(field.name, new Date(field.value).toISOString());
  });
}

// A part is replaced without losing the focus or what is unfolded in it.
const replacePart = (part, html) => {
  const focus = part.contains(document.activeElement) ? document.activeElement.id : "";
  const unfolded = [...part.querySelectorAll("details[open][id]")].map((details) => details.id);
  part.innerHTML = html;
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  showLocalTimes(part);
  htmx.process(part);
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
};

// The stream is open while the page is visible: a hidden page costs the server nothing.
const follow = (root) => {
  const state = document.getElementById(root.dataset.state);
  const held = new Map(); // parts that came while a dialog was open
  let source;
  const showState = (text, kind) => {
    state.textContent = text;
    state.className = `badge ${kind}`;
  };
  const showHeld = () => {
    if (document.querySelector("dialog[open]")) return;
    for (const [part, html] of held) replacePart(part, html);
    held.clear();
  };
  const close = () => {
    source?.close();
    source = undefined;
  };
  const open = () => {
    close();
    source = new EventSource(root.dataset.events);
    source.addEventListener("open", () => showState("Live", "good"));
    source.addEventListener("error", () => {
      const isRefused = source?.readyState === EventSource.CLOSED;
      showState(isRefused ? "Not live: reload the page" : "Connecting again …", "warn");
    });
    source.addEventListener("ended", () => {
      close();
      location.reload(); // the session has ended: the sign-in page follows
    });
    for (const part of root.querySelectorAll("[data-part]")) {
      source.addEventListener(part.dataset.part, (event) => {
        held.set(part, event.data);
        showHeld();
      });
    }
  };
  document.addEventListener("close", showHeld, true);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  if (!document.hidden) open();
};
for (const root of document.querySelectorAll("[data-events]")) follow(root);
}
