// Lines over time: what is measured, its points, and the chart. uPlot draws it.

const STEPS = { Hour: "1m", Day: "15m", Week: "2h", Month: "6h", Year: "1d" };
const MOST_LINES = 10;
const COLOURS = [ // on light and on dark
  ["#2f6fb2", "#6aa9e9"], ["#c2410c", "#ff8a4c"], ["#15703c", "#6fd49a"], ["#8a5300", "#f2c261"], ["#7c3aed", "#b794f6"],
  ["#b3261e", "#ff8d85"], ["#0e7490", "#5cc8dc"], ["#a21caf", "#e88bee"], ["#4d7c0f", "#a3cf62"], ["#596579", "#9eabbf"],
];

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
  const probe = area.appendChild(element("i"));
  const drawn = (colour) => { probe.style.color = colour; return getComputedStyle(probe).color; };
  const grid = drawn("var(--grid)");
  const colours = COLOURS.map(([light, dark]) => drawn(`light-dark(${light}, ${dark})`));
  probe.remove();
  const colour = getComputedStyle(document.body).color;
  const axis = { stroke: colour, grid: { stroke: grid }, ticks: { stroke: grid } };
  const clock = (seconds) => [seconds, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1];
  const dates = [
    [365 * 86400, "{YYYY}", null, null, null, null, null, null, 1], [28 * 86400, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1], clock(3600), clock(60),
  ];
  const zone = host.context.timeZone;
  chart = new uPlot({
    width: Math.max(240, area.clientWidth), height: 220,
    tzDate: zone ? (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone) : undefined,
    scales: { y: { range: (_chart, low, high) => [Math.min(0, low || 0), most && high <= most ? (high > most / 2 ? most : (high || 1) * 1.2) : (high || 1) * 1.1] } },
    axes: [{ ...axis, values: dates }, { ...axis, size: 70, values: (_chart, values) => values.map(format) }],
    series: [{ value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...some.map(({ title, dash }, number) => ({ label: title, stroke: colours[number % colours.length], width: 1.6, dash, spanGaps: false, points: { show: times.length < 3 }, value: (_chart, value) => value === null ? "–" : format(value) }))],
  }, [times, ...columns], area);
}

let width = 0;
new ResizeObserver(() => {
  const area = document.querySelector(".chart");
  if (!chart || !area || Math.abs(area.clientWidth - width) < 4) return;
  width = area.clientWidth;
  chart.setSize({ width: Math.max(240, width), height: 220 });
}).observe(document.documentElement);
