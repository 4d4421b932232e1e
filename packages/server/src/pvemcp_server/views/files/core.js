// What all views share: JSON-RPC with the host over postMessage (MCP Apps, 2026-01-26), elements
// whose texts are never markup, and the life of a view from its first answer to the next.

const PROTOCOL = "2026-01-26";
const host = {
  context: {},
  capabilities: {},
  waiting: new Map(),
  lastId: 0,

  send(message) {
    window.parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
  },

  notify(method, params = {}) {
    host.send({ method, params });
  },

  request(method, params, seconds = 120, lateText = "The client does not answer.") {
    const id = ++host.lastId;
    return new Promise((resolve, reject) => {
      const late = () => settle(() => reject(new Error(lateText)));
      const timer = setTimeout(late, seconds * 1000);
      const settle = (end) => { clearTimeout(timer); host.waiting.delete(id); end(); };
      host.waiting.set(id, (message) => settle(() =>
        message.error ? reject(new Error(message.error.message || "The client refused it.")) : resolve(message.result)));
      host.send({ id, method, params });
    });
  },
};

// Call a tool of this server through the host; return its values, or throw its text.
async function call(name, args, seconds, lateText) {
  if (!host.capabilities.serverTools) throw new Error("This client lets no view call a tool.");
  const result = await host.request("tools/call", { name, arguments: args }, seconds, lateText);
  return valuesOf(result);
}

// Call a tool that writes. It may wait for a confirmation and for a task; the view takes no other
// input until it ends, so a second press sends nothing.
async function write(name, args) {
  const view = document.getElementById("view");
  if (view.inert) throw new Error("The last call has not ended yet.");
  view.inert = true;
  try {
    return await call(name, args, 1800, "The client does not answer. The call may still be carried out: read again before you send it a second time.");
  } finally {
    view.inert = false;
  }
}

// Return a function that starts a read of one kind, and returns whether it is still the last one:
// an answer that comes after that of a later read is dropped.
function sequence() {
  let last = 0;
  return () => { const own = ++last; return () => own === last; };
}

// Return the values of an answer; a tool without a view answers with text, here of JsonNormal.
function valuesOf(result) {
  const texts = (result?.content || []).filter((part) => part.type === "text").map((part) => part.text);
  if (result?.isError) throw new Error(texts.join("\n") || "The call failed.");
  if (result?.structuredContent) return result.structuredContent;
  try {
    const { data } = JSON.parse(texts[0]);
    const notes = texts.slice(1).join("\n").trim();
    if (!Array.isArray(data)) return { document: data, notes };
    return { columns: [...new Set(data.flatMap(Object.keys))], rows: data, notes };
  } catch {
    throw new Error("This client passed no data to the view.");
  }
}

// Put a message of the user into the chat, where the host takes one. The model takes it for the
// user's own words, so it has no text of guests or hosts: no name, finding or sentence of a plan.
async function ask(text) {
  const result = await host.request("ui/message", { role: "user", content: [{ type: "text", text }] }, 20);
  if (result?.isError) throw new Error("The client did not take the message.");
}

const canAsk = () => Boolean(host.capabilities.message);

// Return an element; children are elements or texts, and no text is ever parsed as markup.
function element(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Draw the view again; an empty text stands for nothing.
function fill(...children) {
  document.getElementById("view").replaceChildren(...children.flat().filter(Boolean));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
function bytes(value) {
  if (typeof value !== "number") return "";
  let power = 0;
  while (Math.abs(value) >= 1024 && power < UNITS.length - 1) { value /= 1024; power += 1; }
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

function percent(value) {
  if (typeof value !== "number") return "";
  const shown = value.toFixed(value && Math.abs(value) < 10 ? 1 : 0);
  return `${Number(shown) ? shown : 0} %`;
}

// A bar of a percentage 0-100 with its figure.
function bar(value, text = percent(value)) {
  if (typeof value !== "number") return element("span.muted", {}, "–");
  const filled = element("span");
  filled.style.width = `${Math.max(0, Math.min(100, value))}%`;
  return element("span.figure", {}, element(`span.bar${value >= 90 ? ".high" : ""}`, { "aria-hidden": true }, filled), text);
}

// A table of rows: `columns` are [title, cell of a row, class of the column].
function tableOf(label, columns, rows) {
  return element("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, element("table", {},
    element("thead", {}, element("tr", {}, columns.map(([title, , kind]) => element("th", { scope: "col", class: kind || null }, title)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, columns.map(([, cell, kind]) => element("td", { class: kind || null }, cell(row) ?? "")))))));
}

// A call as tools write it: `Tool {arguments}`; null for any other text.
function callIn(text) {
  const match = /^(\w+) ?(\{.*\})?$/s.exec(text || "");
  if (!match) return null;
  try {
    return { tool: match[1], args: JSON.parse(match[2] || "{}") };
  } catch {
    return null;
  }
}

function notes(text) {
  const lines = (text || "").split("\n").filter(Boolean);
  return lines.length ? element("ul.notes", { "aria-label": "Notes" }, lines.map((line) => element("li", {}, line))) : null;
}

const failed = (error) => status(error.message, true);

function status(text, isError = false) {
  const line = document.getElementById("status");
  line.textContent = text;
  line.classList.toggle("error", isError);
}

function applyContext(context) {
  Object.assign(host.context, context);
  const root = document.documentElement;
  if (context.theme === "light" || context.theme === "dark") root.dataset.theme = context.theme;
  for (const [name, value] of Object.entries(context.styles?.variables || {})) {
    if (name.startsWith("--") && typeof value === "string") root.style.setProperty(name, value);
  }
  const insets = context.safeAreaInsets;
  if (insets) {
    document.body.style.padding = ["top", "right", "bottom", "left"]
      .map((side) => `calc(0.75rem + ${Number(insets[side]) || 0}px)`).join(" ");
  }
}

// Run a view. `show(values, args)` takes an answer; a failure leaves the last one in place. `draw`
// draws it again, in the colours of another theme.
function run(show, draw) {
  let args = {};
  let isShown = false;
  const shown = (result) => {
    try {
      const values = valuesOf(result);
      status("");
      show(values, args);
      isShown = true;
    } catch (error) {
      status(error.message, true);
    }
  };
  const handlers = {
    "ui/notifications/tool-input": (params) => { args = params.arguments || {}; },
    "ui/notifications/tool-result": shown,
    "ui/notifications/tool-cancelled": () => status("The call was cancelled.", true),
    "ui/notifications/host-context-changed": (context) => {
      applyContext(context);
      if (isShown) draw();
    },
  };
  const answers = { "ui/resource-teardown": {}, ping: {} };
  window.addEventListener("message", ({ source, data }) => {
    if (source !== window.parent || !data || data.jsonrpc !== "2.0") return;
    if (data.method === undefined) host.waiting.get(data.id)?.(data);
    else if (data.id === undefined) { if (Object.hasOwn(handlers, data.method)) handlers[data.method](data.params || {}); }
    else if (Object.hasOwn(answers, data.method)) host.send({ id: data.id, result: answers[data.method] });
    else host.send({ id: data.id, error: { code: -32601, message: "Method not found" } });
  });
  // The height of the content, not of the window: the view shrinks too.
  const resized = new ResizeObserver(() => {
    const { height } = document.documentElement.getBoundingClientRect();
    const { scrollWidth: width } = document.documentElement;
    host.notify("ui/notifications/size-changed", { width, height: Math.min(Math.ceil(height), 20000) });
  });
  host.request("ui/initialize", {
    protocolVersion: PROTOCOL,
    appInfo: { name: `pvemcp ${document.title}`, version: "1" },
    appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
  }).then((result) => {
    host.capabilities = result.hostCapabilities || {};
    applyContext(result.hostContext || {});
    status("Waiting for the answer …");
    host.notify("ui/notifications/initialized");
    resized.observe(document.body);
  }).catch((error) => status(error.message, true));
}
