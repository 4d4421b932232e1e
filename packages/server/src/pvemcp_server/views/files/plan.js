// A write's plan as a card: what it does, old and new values, what to know before, and its undo.

const SHOWN_APART = new Set(["dry_run", "would", "undo", "success"]);
const state = { values: {}, args: {}, tool: "" };

function show(values, args) {
  Object.assign(state, { values, args, tool: values.tool });
  draw();
}

// Send the write itself: the server asks the user, or waits for an approval, as its rules say.
async function send(tool, args) {
  status("Sent; you may be asked to confirm it.");
  try {
    const values = await write(tool, { ...args, format: "JsonNormal" });
    status("");
    show({ ...values, tool }, args);
    document.querySelector("#carry-out, #undo")?.focus();
  } catch (error) {
    failed(error);
  }
}

function decline() {
  ask(`I decline this plan of ${state.tool}.`).then(() => { status("Declined. Nothing was changed."); document.getElementById("decide")?.remove(); }).catch(failed);
}

const sentences = () => (state.values.document.would || "").split(/(?<=[.!?]) (?=[A-Z])/).filter(Boolean);

// Changes of fields, old → new, have a line each.
function sentenceOf(sentence) {
  const [, start, changes] = /^(.*?: )(.* → .*)$/s.exec(sentence) || [null, sentence, ""];
  return element("li", {}, start, changes ? element("ul", {}, changes.split(/, (?=[^,]* → )/).map((change) => element("li", {}, change))) : "");
}

function decision() {
  const { tool, args, values } = state;
  if (!values.document.dry_run || !host.capabilities.serverTools) return "";
  const { dry_run: _planned, ...carried } = args;
  return element("div.tools", { id: "decide" }, element("button", { id: "carry-out", onclick: () => send(tool, carried) }, "Carry it out …"),
    canAsk() ? element("button", { id: "decline", onclick: decline }, "Decline") : "");
}

function text(value) {
  if (Array.isArray(value)) return value.map(text).join(", ");
  return value !== null && typeof value === "object" ? Object.entries(value).map(([key, part]) => `${key} ${text(part)}`).join(", ") : String(value);
}

// Changes are rows of field, old and new; other lists of objects become tables too.
function part(name, value) {
  const isTable = Array.isArray(value) && value.length && value.every((row) => row !== null && typeof row === "object" && !Array.isArray(row));
  if (!isTable) return element("dl", {}, element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, text(value)));
  const columns = [...new Set(value.flatMap(Object.keys))];
  return tableOf(name, columns.map((column) => [column.replaceAll("_", " "), (row) => row[column] === null || row[column] === undefined ? "" : text(row[column])]), value);
}

function rowsOf({ columns, rows }) {
  return tableOf("Results", columns.map((column) => [column.replaceAll("_", " "), (row) => row[column] === null || row[column] === undefined ? "" : text(row[column])]), rows);
}

function draw() {
  const { values, tool } = state;
  const { document: answer } = values;
  const undo = answer && !answer.dry_run ? callIn(answer.undo) : null;
  const title = !answer ? tool : answer.dry_run ? `${tool}: what would happen` : `${tool}: done`;
  fill(
    element("div.head", {}, element("h1", {}, title)),
    answer && sentences().length ? element("ul.sentences", {}, sentences().map(sentenceOf)) : "",
    answer ? Object.entries(answer).filter(([name, value]) => !SHOWN_APART.has(name) && value !== null && value !== "").map(([name, value]) => part(name, value)) : rowsOf(values),
    answer?.dry_run && answer.undo ? element("p.muted", {}, `Undone by: ${answer.undo}`) : "",
    answer ? decision() : "",
    undo && host.capabilities.serverTools ? element("div.tools", {}, element("button", { id: "undo", onclick: () => send(undo.tool, { ...undo.args, dry_run: true }) }, "Undo …")) : "",
    notes(values.notes) || "");
}

run(show, draw);
