// Guests as a table that is sorted, filtered and grouped in place.

const FIELDS = ["vmid", "name", "node", "status", "type", "tags", "pool", "cpu_usage", "cpu_count", "memory_usage_percentage", "memory_max"];
const COLUMNS = [
  { field: "vmid", title: "VMID", number: true },
  { field: "name", title: "Name" },
  { field: "status", title: "Status" },
  { field: "node", title: "Node", wide: true },
  { field: "pool", title: "Pool", wide: true },
  { field: "tags", title: "Tags", wide: true },
  { field: "cpu_usage", title: "CPU" },
  { field: "memory_usage_percentage", title: "Memory" },
];
const GROUPS = { "": "no groups", cluster: "cluster", node: "node", pool: "pool", tags: "tag", status: "status" };
const MOST_ROWS = 1000;

const reads = sequence();
const state = { values: { columns: [], rows: [], notes: "" }, args: {}, sort: "vmid", down: false, group: "", filter: "" };

const tagsOf = (row) => Array.isArray(row.tags) ? row.tags : String(row.tags || "").split(";").filter(Boolean);

function show(values, args) {
  reads(); // one that has not ended is of an earlier answer
  state.values = values;
  state.args = args;
  draw();
  const isComplete = FIELDS.slice(-4).some((field) => values.columns.includes(field));
  if (!isComplete && host.capabilities.serverTools) reload();
}

// Read the columns that the table shows; the answer in the chat has fewer, to save tokens.
async function reload() {
  status("Reading usage …");
  const isLast = reads();
  const { cluster_name, status: wanted, type } = state.args;
  const narrowed = Object.fromEntries(Object.entries({ cluster_name, status: wanted, type }).filter(([, value]) => value));
  try {
    const values = await call("ListVms", { ...narrowed, fields: [...FIELDS, ...(narrowed.cluster_name ? [] : ["cluster"])], limit: MOST_ROWS, format: "JsonNormal" });
    if (!isLast()) return;
    state.values = values;
    status("");
    draw();
  } catch (error) {
    if (isLast()) failed(error);
  }
}

function chosen() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => [row.vmid, row.name, row.node, row.status, row.type, row.pool, row.cluster, ...tagsOf(row)].join(" ").toLowerCase();
  const rows = state.values.rows.filter((row) => words.every((word) => text(row).includes(word)));
  const key = (row) => state.sort === "tags" ? tagsOf(row).join(" ") : row[state.sort];
  const missing = (value) => value === null || value === undefined || value === "";
  return rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return state.down ? -order : order;
  });
}

function grouped(rows) {
  if (!state.group) return [["", rows]];
  const groups = new Map();
  for (const row of rows) {
    const names = state.group === "tags" ? tagsOf(row) : [row[state.group]];
    for (const name of names.length ? names : [""]) {
      const shown = name || "none";
      groups.set(shown, [...(groups.get(shown) || []), row]);
    }
  }
  return [...groups].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
}

function cell(row, { field }) {
  if (field === "name") return canAsk() ? element("button.link", { onclick: () => open(row), title: "Ask about this guest" }, row.name || String(row.vmid)) : row.name || "";
  if (field === "status") return element(`span.${row.status === "running" ? "running" : row.status === "paused" ? "paused" : "muted"}`, {}, row.status || "");
  if (field === "tags") return tagsOf(row).map((tag) => element("span.tag", {}, tag));
  if (field === "cpu_usage") return usage(row.cpu_usage, row.cpu_count);
  if (field === "memory_usage_percentage") return usage(row.memory_usage_percentage, row.memory_max && bytes(row.memory_max));
  return String(row[field] ?? "");
}

// A bar with what it is a part of, where the screen has room.
function usage(part, all) {
  return bar(part, element("span", {}, percent(part), all ? element("span.more", {}, ` of ${all}`) : ""));
}

function open(row) {
  const where = row.cluster || state.args.cluster_name;
  ask(`Show the status of guest ${row.vmid}${where ? ` on ${where}` : ""}.`).catch(failed);
}

function heading(column) {
  const isSorted = state.sort === column.field;
  const turn = () => { state.down = isSorted && !state.down; state.sort = column.field; draw(`sort-${column.field}`); };
  const name = `${column.number ? "number " : ""}${column.wide ? "wide" : ""}`;
  return element("th", { scope: "col", class: name.trim() || null, "aria-sort": isSorted ? (state.down ? "descending" : "ascending") : null },
    element("button", { id: `sort-${column.field}`, onclick: turn }, column.title, isSorted ? (state.down ? " ↓" : " ↑") : ""));
}

function draw(focused = document.activeElement?.id) {
  const rows = chosen();
  const columns = COLUMNS.filter(({ field }) => ["vmid", "name", "status"].includes(field) || state.values.columns.includes(field));
  const bodies = grouped(rows).map(([name, some]) => element("tbody", {},
    name ? element("tr.group", {}, element("th", { scope: "rowgroup", colspan: columns.length }, `${name} · ${some.length}`)) : null,
    some.map((row) => element("tr", {}, columns.map((column) => element(`td${column.number ? ".number" : ""}${column.wide ? ".wide" : ""}`, {}, cell(row, column)))))));
  const groups = element("select", { id: "group", onchange: (event) => { state.group = event.target.value; draw("group"); } },
    Object.entries(GROUPS).filter(([field]) => !field || field === "status" || state.values.columns.includes(field))
      .map(([field, title]) => element("option", { value: field, selected: field === state.group }, title)));
  const filter = element("input", { id: "filter", type: "search", value: state.filter, placeholder: "name, tag, node …", oninput: (event) => { state.filter = event.target.value; draw("filter"); } });
  const running = rows.filter((row) => row.status === "running").length;
  fill(
    element("div.head", {}, element("h1", {}, "Guests"), element("p.muted", { role: "status" }, `${rows.length} of ${state.values.rows.length} · ${running} running`)),
    element("div.tools", {}, element("label", {}, "Filter ", filter), element("label", {}, "Group by ", groups),
      host.capabilities.serverTools ? element("button", { id: "again", onclick: reload }, "Read again") : ""),
    element("div.scroll", { tabindex: 0, role: "region", "aria-label": "Table of guests" }, element("table", {}, element("thead", {}, element("tr", {}, columns.map(heading))), bodies)),
    notes(state.values.notes) || "");
  const again = focused && document.getElementById(focused);
  if (again) {
    again.focus();
    if (again.type === "search") again.setSelectionRange(again.value.length, again.value.length);
  }
}

run(show, draw);
