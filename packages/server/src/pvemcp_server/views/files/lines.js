// Lines over time: what is measured, its points, and the chart. uPlot draws it.

const STEPS = { Hour: "1m", Day: "15m", Week: "2h", Month: "6h", Year: "1d" };
const MOST_LINES = 10;
const COLOURS = ["#2f6fb2", "#c2410c", "#15703c", "#8a5300", "#7c3aed", "#b3261e", "#0e7490", "#a21caf", "#4d7c0f", "#596579"];

const METRICS = {
  cpu_usage: { title: "CPU", format: percent, most: 100 },
  memory: { title: "Memory", format: percent, most: 100, of: (row) => share(row.memory_usage, row.memory_total) ?? row.memory_usage_percentage },
  iowait: { title: "I/O wait", format: percent },
  loadavg: { title: "Load", format: (value) => value?.toFixed(2) ?? "" },
  swap: { title: "Swap", format: percent, most: 100, of: (row) => share(row.swap_usage, row.swap_total) },
  disk_read_rate: { title: "Disk read", format: rate },
  disk_write_rate: { title: "Disk write", format: rate },
  network_in_rate: { title: "Network in", format: rate },
  network_out_rate: { title: "Network out", format: rate },
  ...Object.fromEntries(["cpu", "io", "memory"].flatMap((kind) => ["some", "full"].map((part) => [`pressure_${kind}_${part}`, { title: `Pressure ${kind} ${part}`, format: percent }]))),
};

let chart = null;

function rate(value) { return typeof value === "number" ? `${bytes(value)}/s` : ""; }
function share(used, total) { return typeof used === "number" && total ? 100 * used / total : undefined; }
const valueOf = (row, metric) => METRICS[metric].of ? METRICS[metric].of(row) : row[metric];
const subjectOf = (row) => row.vmid !== undefined ? `${row.vmid}${row.name ? ` ${row.name}` : ""}` : row.node;

// Return the lines of a metric: their subject and their points, as [seconds, value].
function linesOf(rows, metric) {
  const bySubject = new Map();
  for (const row of rows) {
    const value = valueOf(row, metric);
    if (typeof value !== "number") continue;
    const subject = subjectOf(row);
    if (!bySubject.has(subject)) bySubject.set(subject, []);
    bySubject.get(subject).push([Date.parse(row.time) / 1000, value]);
  }
  return [...bySubject].slice(0, MOST_LINES).map(([title, points]) => ({ title, points }));
}

// The chart in words, for screen readers.
function described(some, metric, frame) {
  const { title: name, format } = METRICS[metric];
  const parts = some.map(({ title, points }) => {
    const values = points.map(([, value]) => value);
    return `${title}: from ${format(Math.min(...values))} to ${format(Math.max(...values))}, last ${format(values.at(-1))}`;
  });
  return `${name} over the last ${frame.toLowerCase()}. ${parts.join("; ")}`;
}

function drawLines(area, some, { format, most }) {
  chart?.destroy();
  chart = null;
  if (!some.length) { area.append(element("p.muted", {}, "No values were recorded.")); return; }
  const times = [...new Set(some.flatMap(({ points }) => points.map(([time]) => time)))].sort((a, b) => a - b);
  const columns = some.map(({ points }) => { const at = new Map(points); return times.map((time) => at.get(time) ?? null); });
  const probe = element("i"); probe.style.color = "var(--grid)"; area.append(probe);
  const grid = getComputedStyle(probe).color;
  probe.remove();
  const colour = getComputedStyle(document.body).color;
  const axis = { stroke: colour, grid: { stroke: grid }, ticks: { stroke: grid } };
  const zone = host.context.timeZone;
  chart = new uPlot({
    width: Math.max(240, area.clientWidth), height: 220,
    tzDate: zone ? (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone) : undefined,
    scales: { y: { range: (_chart, low, high) => [Math.min(0, low || 0), most && high <= most ? (high > most / 2 ? most : (high || 1) * 1.2) : (high || 1) * 1.1] } },
    axes: [axis, { ...axis, size: 70, values: (_chart, values) => values.map(format) }],
    series: [{}, ...some.map(({ title, dash }, number) => ({ label: title, stroke: COLOURS[number % COLOURS.length], width: 1.6, dash, spanGaps: false, points: { show: times.length < 3 }, value: (_chart, value) => value === null ? "–" : format(value) }))],
  }, [times, ...columns], area);
}

let width = 0;
new ResizeObserver(() => {
  const area = document.querySelector(".chart");
  if (!chart || !area || Math.abs(area.clientWidth - width) < 4) return;
  width = area.clientWidth;
  chart.setSize({ width: Math.max(240, width), height: 220 });
}).observe(document.documentElement);
