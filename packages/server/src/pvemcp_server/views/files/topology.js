// A cluster: its nodes with their guests, the storages and bridges of each, and what a fall moves.

const reads = sequence();
const state = { status: {}, args: {}, notes: "", tools: [], nodes: [], guests: [], storages: [], networks: [], falls: "", guest: null };

function show(values, args) {
  Object.assign(state, { status: values.document, args, notes: values.notes, tools: values.tools || state.tools, falls: "", guest: null });
  draw();
  readAll();
}

async function readAll() {
  const cluster_name = state.status.cluster;
  const isLast = reads();
  const bridges = { from: "bridges", select: ["node", "name"], where: { conditions: [{ field: "cluster", operator: "=", value: [cluster_name] }] } };
  const parts = [
    ["ListNodes", { cluster_name, fields: ["node", "status", "cpu_usage", "memory_usage", "memory_total", "memory_usage_percentage"] }, "nodes"],
    ["ListVms", { cluster_name, limit: 1000, fields: ["vmid", "name", "node", "status", "type", "ha_state", "memory_max", "is_template"] }, "guests"],
    ["ListStorage", { cluster_name, limit: 1000, fields: ["storage", "node", "type", "shared", "status", "disk_usage_percentage"] }, "storages"],
    ["ExecuteQuery", { query: bridges }, "networks"],
  ];
  const notesOf = new Set([state.notes]);
  status("Reading nodes, guests and storages …");
  const problems = new Set();
  await Promise.all(parts.filter(([tool]) => state.tools.includes(tool)).map(async ([tool, args, part]) => {
    try {
      const values = await call(tool, { ...args, format: "JsonNormal" });
      if (!isLast()) return;
      state[part] = values.rows;
      (values.notes || "").split("\n").filter((note) => note.startsWith("Offline") || note.startsWith("Rows")).forEach((note) => notesOf.add(note));
      draw();
    } catch (error) {
      problems.add(error.message);
    }
  }));
  if (!isLast()) return;
  state.notes = [...notesOf].filter(Boolean).join("\n");
  status([...problems].join(" "), problems.size > 0);
  draw();
}

async function again() {
  status("Reading …");
  try {
    show(await call("GetClusterStatus", { cluster_name: state.status.cluster, format: "JsonNormal" }), state.args);
  } catch (error) {
    failed(error);
  }
}

const runs = (guest) => guest.status === "running" || guest.status === "paused";
const isHigh = (guest) => ["started", "enabled"].includes(guest.ha_state);
const sum = (rows, field) => rows.reduce((total, row) => total + (row[field] || 0), 0);

// What high availability starts elsewhere when the node falls, and whether the others have the memory.
function consequence() {
  if (!state.falls) return "";
  const there = state.guests.filter((guest) => guest.node === state.falls && runs(guest));
  const moved = there.filter(isHigh);
  const others = state.nodes.filter((node) => node.node !== state.falls && node.status === "online");
  const free = sum(others, "memory_total") - sum(others, "memory_usage");
  const needed = sum(moved, "memory_max");
  const local = [...new Set(state.storages.filter((each) => each.node === state.falls && !each.shared).map((each) => each.storage))];
  return element("div", { role: "status" },
    element("p", {}, element("strong", {}, `If ${state.falls} falls: `), element("span.key.moves", { "aria-hidden": true }), `${moved.length} guests start elsewhere by HA (${bytes(needed)} of memory, the other nodes have ${bytes(free)} free${needed > free ? ": too little" : ""}); `,
      element("span.key.stays", { "aria-hidden": true }), `${there.length - moved.length} stay down.`),
    local.length ? element("p.muted", {}, `Local storages there, whose disks cannot be read until it is back: ${local.join(", ")}.`) : "");
}

function guestButton(guest) {
  const falls = state.falls === guest.node && runs(guest);
  const kind = falls ? (isHigh(guest) ? "moves" : "stays") : runs(guest) ? guest.status : guest.status === "unknown" ? "unknown" : "stopped";
  const name = `${guest.vmid} ${guest.name || ""}, ${guest.status}`;
  return element(`button.${kind}.${guest.type}`, { id: `guest-${guest.vmid}`, title: name, "aria-label": name, onclick: () => { state.guest = guest; draw(); } });
}

function nodeCard(node) {
  const guests = state.guests.filter((guest) => guest.node === node.node && !guest.is_template);
  const storages = state.storages.filter((each) => each.node === node.node);
  const bridges = state.networks.filter((each) => each.node === node.node);
  const isFallen = state.falls === node.node;
  return element(`section.node${node.status === "online" ? "" : ".offline"}${isFallen ? ".falls" : ""}`, { "aria-label": `Node ${node.node}` },
    element("div.head", {}, element("h2", {}, node.node, " ", element(`span.${node.status === "online" ? "good" : "failed"}`, {}, node.status)),
      node.status === "online" ? element("button", { id: `fall-${node.node}`, "aria-pressed": String(isFallen), onclick: () => { state.falls = isFallen ? "" : node.node; draw(); } }, "If it falls") : ""),
    node.status === "online" ? element("p", {}, element("span.whole", {}, "CPU ", bar(node.cpu_usage)), " ", element("span.whole", {}, "memory ", bar(node.memory_usage_percentage))) : "",
    element("div.guests", { role: "group", "aria-label": `${guests.length} guests` }, guests.map(guestButton)),
    element("div.chips", {}, storages.map((each) => element("span.chip", { title: `${each.type}, ${each.status}` }, `${each.storage}${each.shared ? " (shared)" : ""} ${percent(each.disk_usage_percentage)}`)), bridges.map((each) => element("span.chip", {}, each.name))));
}

function chosenGuest() {
  const { guest } = state;
  if (!guest) return "";
  return element("p", { role: "status" }, `${guest.vmid} ${guest.name || ""}: ${guest.status} on ${guest.node}${guest.ha_state ? `, HA ${guest.ha_state}` : ""}, ${bytes(guest.memory_max)}. `,
    canAsk() ? element("button", { id: "open-guest", onclick: () => ask(`Show the status of guest ${guest.vmid} on ${state.status.cluster}.`).catch(failed) }, "Open") : "");
}

function draw(focused = document.activeElement?.id) {
  const { status: facts } = state;
  fill(
    element("div.head", {}, element("h1", {}, `Cluster ${facts.cluster}`), element("p.muted", {}, `${facts.nodes_online} of ${facts.nodes_total} nodes online${facts.quorate === false ? ", no quorum" : ""}${facts.ceph ? `, Ceph ${facts.ceph.status}` : ""}`),
      host.capabilities.serverTools && state.tools.includes("GetClusterStatus") ? element("button", { id: "again", onclick: again }, "Read again") : ""),
    consequence(), chosenGuest(),
    element("div.nodes", {}, state.nodes.map(nodeCard)),
    notes(state.notes));
  document.getElementById(focused)?.focus();
}

run(show, draw);
