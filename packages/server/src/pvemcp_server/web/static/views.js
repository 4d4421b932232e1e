// The page that tries a tool as the host of its view (MCP Apps, 2026-01-26). The view runs in a
// sandbox without an origin: it gets the answer, and its calls are tried as the call of the form is.
"use strict";

const VIEW_PROTOCOL = "2026-01-26";
const dark = matchMedia("(prefers-color-scheme: dark)");
const themeOfPage = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
const failure = (text) => ({ isError: true, content: [{ type: "text", text }] });

// The sandbox's own answer to a question is none: the administrator answers it on this page.
const askFor = (name, question) => new Promise((resolve) => {
  const button = document.createElement("button");
  button.className = "danger";
  button.textContent = `Call ${name}`;
  const dialog = document.getElementById("asking");
  ask(question, { elt: button, issueRequest: () => resolve(true) });
  dialog.addEventListener("close", () => setTimeout(resolve, 0, false), { once: true });
});

// Try a call of a view, confirmed for one question; it may wait for the dialog that confirms who the administrator is.
const tryOnce = (view, name, args, question = "") => new Promise((resolve) => {
  const place = document.createElement("div");
  place.hidden = true;
  view.append(place);
  const settle = (result) => { place.remove(); resolve(result); };
  let isSent = false;
  place.addEventListener("htmx:beforeSend", () => { isSent = true; });
  place.addEventListener("htmx:afterRequest", ({ detail: { xhr } }) => {
    isSent = false;
    const answered = place.querySelector("[data-result]");
    if (answered) return settle(answered);
    if (xhr.getResponseHeader("HX-Retarget") !== "#confirmation") {
      const said = new DOMParser().parseFromString(xhr.responseText, "text/html").body.textContent.trim();
      return settle(failure(xhr.status === 200 && said ? said : "The server does not answer."));
    }
    document.querySelector("#confirmation dialog").addEventListener("close", () => {
      if (!isSent) settle(failure("You did not confirm who you are; nothing was sent."));
    });
  });
  htmx.ajax("POST", `${view.dataset.tools}/${encodeURIComponent(name)}/call`, {
    source: place,
    target: place,
    values: { key: view.dataset.key, call: JSON.stringify(args), confirmed: question ? "yes" : "", question },
  });
});

const tryCall = async (view, name, args) => {
  let answered = await tryOnce(view, name, args);
  while (answered.dataset?.question) { // again if the plan has changed since the question
    if (!await askFor(name, answered.dataset.question)) break;
    answered = await tryOnce(view, name, args, answered.dataset.questionId);
  }
  return answered.dataset ? JSON.parse(answered.dataset.result) : answered;
};

const hostView = (view) => {
  const frame = view.querySelector("iframe");
  // "*", since the sandbox has no origin to name; the receiver is this frame's window only
  const send = (message) => frame.contentWindow?.postMessage({ jsonrpc: "2.0", ...message }, "*");
  const answers = {
    ping: () => ({}),
    "tools/call": ({ name, arguments: args }) => tryCall(view, String(name), args ?? {}),
    "ui/initialize": () => ({
      protocolVersion: VIEW_PROTOCOL,
      hostInfo: { name: "pvemcp admin pages", version: "1" },
      hostCapabilities: { serverTools: {} },
      hostContext: { theme: themeOfPage(), displayMode: "inline", availableDisplayModes: ["inline"] },
    }),
  };
  const notified = {
    "ui/notifications/initialized": () => {
      send({ method: "ui/notifications/tool-input", params: { arguments: JSON.parse(view.dataset.arguments) } });
      send({ method: "ui/notifications/tool-result", params: JSON.parse(view.dataset.result) });
    },
    "ui/notifications/size-changed": ({ height }) => {
      if (height > 0) frame.style.height = `${Math.ceil(height)}px`;
    },
  };
  const receive = async ({ source, data }) => {
    if (source !== frame.contentWindow || data?.jsonrpc !== "2.0") return;
    const { id, method, params = {} } = data;
    if (id === undefined) {
      if (Object.hasOwn(notified, method)) notified[method](params);
    } else if (Object.hasOwn(answers, method)) {
      send({ id, result: await answers[method](params) });
    } else {
      send({ id, error: { code: -32601, message: "Method not found" } });
    }
  };
  const changeTheme = () => send({ method: "ui/notifications/host-context-changed", params: { theme: themeOfPage() } });
  const life = new AbortController();
  addEventListener("message", (event) => view.isConnected ? receive(event) : life.abort(), { signal: life.signal });
  dark.addEventListener("change", changeTheme, { signal: life.signal });
  const observer = new MutationObserver(changeTheme);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  life.signal.addEventListener("abort", () => observer.disconnect());
};

document.addEventListener("htmx:afterSwap", ({ target }) => {
  if (target.id === "answer") target.querySelectorAll("[data-view]").forEach(hostView);
});
