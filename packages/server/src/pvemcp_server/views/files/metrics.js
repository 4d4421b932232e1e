// Recorded metrics of guests, nodes and storages: lines over time, and the summary beside them.

const MOST_ROWS = 1000;
const DAY = 86400;

const reads = sequence();
const state = { args: {}, tool: "", summary: null, rows: [], notes: "", frame: "Day", metric: "cpu_usage", storages: null };

function show(values, args) {
  reads(); // one that has not ended is of an earlier answer
  state.args = args;
  state.frame = args.time_frame || (values.columns.includes("growth_per_day") ? "Month" : "Day");
  if (values.columns.includes("growth_per_day")) return showForecast(values);
  state.tool = values.columns.includes("vmid") || args.vmids ? "ListVmRrdData" : "ListNodeRrdData";
  const isSeries = values.columns.includes("time");
  state.summary = isSeries ? null : values;
  if (isSeries) setRows(values);
  draw();
  if (!isSeries && host.capabilities.serverTools) read();
}

function setRows(values) {
  state.rows = values.rows;
  state.notes = values.notes;
  if (!available().includes(state.metric)) state.metric = available()[0] || "cpu_usage";
}

const available = () => Object.keys(METRICS).filter((metric) => state.rows.some((row) => typeof valueOf(row, metric) === "number"));

// Read the rows over time; with another frame also their summary.
async function read(withSummary = false) {
  const { cluster_name, vmids, nodes, metrics, consolidation } = state.args;
  const given = { cluster_name, vmids, nodes, metrics, consolidation, time_frame: state.frame, format: "JsonNormal" };
  const args = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null));
  status("Reading …");
  const isLast = reads();
  try {
    const [series, summary] = await Promise.all([
      call(state.tool, { ...args, step: STEPS[state.frame], limit: MOST_ROWS }),
      withSummary ? call(state.tool, args) : state.summary,
    ]);
    if (!isLast()) return;
    state.summary = summary;
    setRows(series);
    status("");
    draw();
  } catch (error) {
    if (isLast()) failed(error);
  }
}

function button(title, isPressed, act) {
  return element("button", { id: `show-${title}`, "aria-pressed": String(isPressed), onclick: act }, title);
}

function draw(focused = document.activeElement?.id) {
  const metrics = available();
  const frames = host.capabilities.serverTools ? Object.keys(STEPS) : [];
  const area = element("div.chart", { role: "img", "aria-label": alternative() });
  fill(
    element("div.head", {}, element("h1", {}, METRICS[state.metric].title),
      element("div.tools", { role: "group", "aria-label": "Time frame" }, frames.map((frame) => button(frame, frame === state.frame, () => { state.frame = frame; read(true); })))),
    element("div.tools", { role: "group", "aria-label": "Metric" }, metrics.map((metric) => button(METRICS[metric].title, metric === state.metric, () => { state.metric = metric; draw(); }))),
    area, summaryTable() || "", notes([state.notes, state.summary?.notes].filter(Boolean).join("\n")) || "");
  drawLines(area, lines(), METRICS[state.metric]);
  document.getElementById(focused)?.focus();
}

const lines = () => linesOf(state.rows, state.metric);

const alternative = () => described(lines(), state.metric, state.frame);

function summaryTable() {
  const values = state.summary;
  if (!values?.rows.length || !values.columns.includes("metric")) return null;
  const wanted = new Set([state.metric, state.metric === "memory" ? "memory_usage_percentage" : state.metric]);
  const { format } = METRICS[state.metric];
  const rows = values.rows.filter((row) => wanted.has(row.metric));
  if (!rows.length) return null;
  const figures = [["average", "Average"], ["p95", "95 %"], ["maximum", "Highest"], ["latest", "Latest"], ["trend", "Trend"]];
  return tableOf("Summary", [["", (row) => row.vmid !== undefined ? String(row.vmid) : row.node],
    ...figures.map(([field, title]) => [title, (row) => `${field === "trend" && row[field] > 0 ? "+" : ""}${format(row[field])}`, "number"])], rows);
}

// Storages: what they hold now, and the straight line on which each is full.
function showForecast(values) {
  state.storages = values;
  const now = Date.now() / 1000;
  const rows = values.rows.filter((row) => typeof row.disk_usage_percentage === "number");
  const filling = rows.filter((row) => row.full_on).slice(0, MOST_LINES);
  const area = element("div.chart", { role: "img", "aria-label": `Forecast. ${filling.map((row) => `${row.storage} on ${row.node}: ${percent(row.disk_usage_percentage)} now, full on ${day(row.full_on)}`).join("; ")}` });
  fill(
    element("div.head", {}, element("h1", {}, "Storages"), element("p.muted", {}, `by their growth over the last ${state.frame.toLowerCase()}`)),
    area,
    tableOf("Table of storages", [["Storage", (row) => element("span", {}, `${row.storage} · ${row.node}`)], ["In use", (row) => bar(row.disk_usage_percentage)], ["Free", (row) => bytes(row.disk_free), "number"],
      ["Growth a day", (row) => bytes(row.growth_per_day), "number wide"], ["Full on", fullOn]], rows),
    notes(values.notes) || "");
  const horizon = Math.min(now + 730 * DAY, Math.max(now + 30 * DAY, ...filling.map((row) => Date.parse(row.full_on) / 1000)));
  const forecasts = filling.map((row) => {
    const full = Date.parse(row.full_on) / 1000;
    const end = Math.min(full, horizon);
    const reached = row.disk_usage_percentage + (100 - row.disk_usage_percentage) * (end - now) / Math.max(1, full - now);
    return { title: `${row.storage} ${row.node}`, dash: [6, 4], points: [[now, row.disk_usage_percentage], [end, reached]] };
  });
  if (forecasts.length) drawLines(area, withGaps(forecasts), { format: percent, most: 100 });
  else area.remove();
}

function fullOn(row) {
  if (!row.full_on) return "not within ten years";
  const latest = row.full_latest ? day(row.full_latest) : "perhaps never";
  return element("span.whole", {}, day(row.full_on), row.full_earliest ? element("span.more", {}, ` (${day(row.full_earliest)} to ${latest})`) : "");
}

// uPlot draws columns over common times; a straight line is given a value at each of them.
function withGaps(some) {
  const times = [...new Set(some.flatMap(({ points }) => points.map(([time]) => time)))].sort((a, b) => a - b);
  return some.map(({ points: [[start, from], [end, to]], ...rest }) => ({
    ...rest, points: times.filter((time) => time <= end).map((time) => [time, from + (to - from) * (time - start) / Math.max(1, end - start)]),
  }));
}

const day = (time) => String(time).slice(0, 10);

run(show, () => state.storages ? showForecast(state.storages) : draw());
