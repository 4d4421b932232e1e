// One guest: state, addresses, configuration, and its snapshots and backups as a line in time.

const ACTIONS = { running: ["Shutdown", "Reboot", "Stop"], stopped: ["Start"], paused: ["Resume", "Stop"] };
const reads = sequence();
const state = { guest: {}, args: {}, notes: "", tools: [], config: null, moments: [], chosen: null, plan: null, rows: [], metric: "cpu_usage" };
const place = () => ({ cluster_name: state.guest.cluster, vmid: state.guest.vmid });
const mayCall = (tool) => host.capabilities.serverTools && state.tools.includes(tool);

function show(values, args) {
  const { cluster, vmid } = values.document;
  if (cluster !== state.guest.cluster || vmid !== state.guest.vmid) Object.assign(state, { config: null, moments: [], chosen: null, rows: [] });
  Object.assign(state, { guest: values.document, args, notes: values.notes, tools: values.tools || state.tools, plan: null });
  draw();
  readMore();
}

// Read what the answer in the chat leaves out; each part is shown as soon as it is there.
async function readMore() {
  const { cluster_name, vmid } = place();
  const isLast = reads();
  const moments = [];
  const parts = [
    ["GetVmConfig", { cluster_name, vmid }, ({ document }) => { state.config = document; }],
    ["ListSnapshots", { cluster_name, vmids: [vmid] }, ({ rows }) => moments.push(...rows.map((row) => ({ kind: "snapshot", time: row.date, text: `Snapshot ${row.name}` })))],
    ["ListBackups", { cluster_name, vmid, limit: 200 }, ({ rows }) => moments.push(...rows.map((row) => ({ kind: "backup", time: row.creation, text: `Backup on ${row.storage}, ${bytes(row.size)}${row.verified === true ? ", verified" : row.verified === false ? ", not verified" : ""}` })))],
    ["ListVmRrdData", { cluster_name, vmids: [vmid], step: STEPS.Day, limit: 1000 }, ({ rows }) => { state.rows = rows; }],
  ];
  await Promise.all(parts.filter(([tool]) => mayCall(tool)).map(async ([tool, args, take]) => {
    try {
      const values = await call(tool, { ...args, format: "JsonNormal" });
      if (!isLast()) return;
      take(values);
      state.moments = moments.filter(({ time }) => time).sort((a, b) => a.time.localeCompare(b.time));
      draw();
    } catch (error) {
      if (isLast()) failed(error);
    }
  }));
}

// Read the guest again; `done` says what has just been carried out.
async function again(done = "") {
  status(`${done} Reading …`);
  try {
    const values = await call("GetVmStatus", { ...place(), format: "JsonNormal" });
    status(done);
    show(values, state.args);
  } catch (error) {
    status(`${done} ${error.message}`, true);
  }
}

// Show what an action would do; the call itself goes through roles, confirmation and audit.
async function act(action, isDryRun) {
  const { cluster_name, vmid } = place();
  status(isDryRun ? "Asking what it would do …" : "Sent; you may be asked to confirm it.");
  try {
    const { document } = await write("ChangeVmState", { cluster_name, vmids: [vmid], action, dry_run: isDryRun, wait: !isDryRun, format: "JsonNormal" });
    state.plan = isDryRun ? { action, would: document.would } : null;
    draw(isDryRun ? "carry-out" : "again");
    if (isDryRun) status("");
    else await again(`${action}: ${document.task_status || "done"}${document.exit_status ? `, ${document.exit_status}` : ""}.`);
  } catch (error) {
    state.plan = null;
    draw();
    failed(error);
  }
}

function planCard() {
  if (!state.plan) return "";
  const { action, would } = state.plan;
  return element("div.card", { role: "group", "aria-label": "Plan" }, element("p", {}, would), element("div.tools", {},
    element("button", { id: "carry-out", onclick: () => act(action, false) }, action),
    element("button", { id: "leave", onclick: () => { state.plan = null; draw(); } }, "Leave it")));
}

function facts() {
  const { guest, config } = state;
  const addresses = (guest.ip_addresses || []).map((each) => typeof each === "string" ? each : each.address || each.ip || JSON.stringify(each));
  const list = [
    ["Node", guest.node], ["CPU", guest.status === "running" ? bar(guest.cpu_usage, `${percent(guest.cpu_usage)} of ${guest.cpu_count}`) : `${guest.cpu_count ?? ""}`],
    ["Memory", guest.status === "running" ? bar(guest.memory_usage_percentage, `${percent(guest.memory_usage_percentage)} of ${bytes(guest.memory_max)}`) : bytes(guest.memory_max)],
    ["Disk", bytes(guest.disk_max)], ["Uptime", guest.uptime ? `${Math.floor(guest.uptime / 86400)} d ${Math.floor(guest.uptime % 86400 / 3600)} h` : ""],
    ["Addresses", addresses.join(", ") || (guest.agent === "off" ? "agent is off" : "")], ["HA", guest.ha_managed ? guest.ha_state || "managed" : "not managed"], ["Lock", guest.lock],
  ];
  if (config) {
    list.push(["Disks", (config.disks || []).map((disk) => `${disk.id} ${disk.storage || ""} ${bytes(disk.size)}`).join("; ")],
      ["Networks", (config.networks || []).map((net) => `${net.id} ${net.bridge || ""}${net.vlan ? ` VLAN ${net.vlan}` : ""}`).join("; ")],
      ["Tags", (config.tags || []).join(", ")], ["Pending", (config.pending || []).length ? `${config.pending.length} changes wait for a restart` : ""], ["Notes", config.description]);
  }
  return element("dl", {}, list.filter(([, value]) => value).map(([title, value]) => element("div", {}, element("dt", {}, title), element("dd", {}, value))));
}

function timeline() {
  if (!state.moments.length) return "";
  const times = state.moments.map(({ time }) => Date.parse(time));
  const [first, last] = [Math.min(...times), Math.max(...times, Date.now())];
  const same = ({ time, text }) => time === state.chosen?.time && text === state.chosen.text;
  const chosen = state.moments.find(same);
  return element("section", { "aria-label": "Snapshots and backups" }, element("h2", {}, `${state.moments.length} snapshots and backups`),
    element("div.line", {}, state.moments.map((moment, number) => {
      const spot = element(`button.${moment.kind}`, { id: `moment-${number}`, "aria-label": `${moment.text}, ${moment.time}`, "aria-pressed": String(same(moment)), title: `${moment.text}, ${moment.time}`, onclick: () => { state.chosen = moment; draw(); } });
      spot.style.left = `${100 * (Date.parse(moment.time) - first) / Math.max(1, last - first)}%`;
      return spot;
    })),
    element("p.ends.muted", {}, element("span", {}, state.moments[0].time.slice(0, 10)), element("span", { role: "status" }, chosen ? `${chosen.text}, ${chosen.time}` : "choose one"), element("span", {}, "now")));
}

function usage() {
  if (!state.rows.length) return "";
  const chosen = ["cpu_usage", "memory", "disk_read_rate", "disk_write_rate", "network_in_rate", "network_out_rate"];
  return element("section", { "aria-label": "Use over the last day" },
    element("div.tools", { role: "group", "aria-label": "Metric" }, chosen.map((metric) => element("button", { id: `metric-${metric}`, "aria-pressed": String(metric === state.metric), onclick: () => { state.metric = metric; draw(); } }, METRICS[metric].title))),
    element("div.chart", { role: "img", "aria-label": described(linesOf(state.rows, state.metric), state.metric, "Day") }));
}

function draw(focused = document.activeElement?.id) {
  const { guest } = state;
  const actions = mayCall("ChangeVmState") ? ACTIONS[guest.status] || [] : [];
  fill(
    element("div.head", {}, element("h1", {}, `${guest.vmid} ${guest.name || ""} `, element(`span.${guest.status === "running" ? "running" : "muted"}`, {}, guest.status || "")),
      element("div.tools", {}, actions.map((action) => element("button", { id: `act-${action}`, onclick: () => act(action, true) }, `${action} …`)),
        mayCall("GetVmStatus") ? element("button", { id: "again", onclick: () => again() }, "Read again") : "")),
    planCard(), facts(), timeline(), usage(), notes(state.notes));
  const area = document.querySelector(".chart");
  if (area) drawLines(area, linesOf(state.rows, state.metric), METRICS[state.metric]);
  document.getElementById(focused)?.focus();
}

run(show, draw);
