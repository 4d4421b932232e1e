// What needs attention, ranked as the answer ranks it; the next call of each is made in place.

const reads = sequence();
const state = { values: { rows: [], columns: [], notes: "" }, args: {}, shown: new Set(["critical", "warning", "notice"]), answers: new Map() };

function show(values, args) {
  state.values = values;
  state.args = args;
  state.answers = new Map();
  draw();
}

async function again() {
  status("Looking …");
  const isLast = reads();
  try {
    const values = await call("GetAttention", { ...state.args, format: "JsonNormal" });
    if (!isLast()) return;
    status("");
    show(values, state.args);
  } catch (error) {
    if (isLast()) failed(error);
  }
}

async function look(key, next) {
  const { answers } = state; // of this list: the finding may be another one in the next
  answers.set(key, element("p.muted", {}, "Reading …"));
  draw(key);
  try {
    answers.set(key, table(await call(next.tool, { ...next.args, format: "JsonNormal" })));
  } catch (error) {
    answers.set(key, element("p.failed", { role: "alert" }, error.message));
  }
  if (answers === state.answers) draw();
}

function table(values) {
  const rows = values.document ? Object.entries(values.document).map(([field, value]) => ({ field, value })) : values.rows;
  const columns = values.document ? ["field", "value"] : values.columns;
  if (!rows.length) return element("p.muted", {}, "Nothing.", notes(values.notes) || "");
  const text = (value) => value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return element("div.answer", {}, tableOf("Answer", columns.map((column) => [column.replaceAll("_", " "), (row) => text(row[column])]), rows.slice(0, 50)),
    rows.length > 50 ? element("p.muted", {}, `${rows.length - 50} more rows.`) : "", notes(values.notes) || "");
}

function finding(row, number) {
  const key = `next-${number}`;
  const next = callIn(row.next);
  const canLook = next && host.capabilities.serverTools;
  return element(`li.${row.severity}-item`, {},
    element("p", {}, element(`strong.${row.severity}`, {}, row.severity), ` · ${row.area}${row.since ? ` · since ${row.since}` : ""}`),
    element("p", {}, row.finding),
    element("div.tools", {},
      canLook ? element("button", { id: key, onclick: () => look(key, next) }, `Show all (${next.tool})`) : "",
      canAsk() ? element("button", { id: `${key}-ask`, onclick: () => ask(`What should I do about finding ${number + 1} of GetAttention (${row.severity}, ${row.area})?`).catch(failed) }, "Ask what to do") : ""),
    state.answers.get(key) || "");
}

function draw(focused = document.activeElement?.id) {
  const rows = state.values.rows;
  const counts = ["critical", "warning", "notice"].map((severity) => [severity, rows.filter((row) => row.severity === severity).length]);
  const toggle = (severity) => { state.shown.has(severity) ? state.shown.delete(severity) : state.shown.add(severity); draw(`only-${severity}`); };
  fill(
    element("div.head", {}, element("h1", {}, "What needs attention"),
      host.capabilities.serverTools ? element("button", { id: "again", onclick: again }, "Look again") : ""),
    element("div.tools", { role: "group", "aria-label": "Severities" }, counts.map(([severity, count]) =>
      element("button", { id: `only-${severity}`, "aria-pressed": String(state.shown.has(severity)), onclick: () => toggle(severity) }, `${count} ${severity}`))),
    rows.length ? element("ol.findings", {}, rows.map((row, number) => state.shown.has(row.severity) ? finding(row, number) : null)) : element("p.good", {}, "Nothing was found."),
    notes(state.values.notes) || "");
  document.getElementById(focused)?.focus();
}

run(show, draw);
