// A client with MCP Apps for tests: the official client and host parts, in one page, and the two
// frames of the reference host: a proxy of another origin, which writes the view into its own frame.
//
// The address has `url` (the endpoint), `key`, `tool`, `arguments` (JSON), `theme` and `proxy`. What
// the view asks of the host is collected in window.asked, and the sizes that it sends in sizes.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

const EXTENSION = "io.modelcontextprotocol/ui";
const MIME_TYPE = "text/html;profile=mcp-app";
const query = new URLSearchParams(location.search);
window.asked = [];
window.sizes = [];

async function connected() {
  const capabilities = { extensions: { [EXTENSION]: { mimeTypes: [MIME_TYPE] } } };
  const client = new Client({ name: "view host", version: "1" }, { capabilities });
  const requestInit = { headers: { "X-API-Key": query.get("key") } };
  await client.connect(new StreamableHTTPClientTransport(new URL(query.get("url")), { requestInit }));
  return client;
}

async function show(client, name, args) {
  const { tools } = await client.listTools();
  const uri = tools.find((tool) => tool.name === name)._meta.ui.resourceUri;
  const { contents } = await client.readResource({ uri });
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts allow-same-origin";
  frame.style = "width: 100%; height: 600px; border: 0";
  const bridge = new AppBridge(client, { name: "view host", version: "1" }, { serverTools: {}, message: { text: {} } }, {
    hostContext: { theme: query.get("theme") || "light", displayMode: "inline" },
  });
  bridge.onmessage = async (params) => { window.asked.push(params.content[0].text); return {}; };
  bridge.onsizechange = ({ height }) => {
    window.sizes.push(height);
    if (height) frame.style.height = `${height}px`;
  };
  const proxied = new Promise((resolve) => { bridge.onsandboxready = resolve; });
  const ready = new Promise((resolve) => { bridge.oninitialized = resolve; });
  document.body.append(frame);
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.src = query.get("proxy");
  await proxied;
  await bridge.sendSandboxResourceReady({ html: contents[0].text, sandbox: "allow-scripts allow-same-origin" });
  await ready;
  await bridge.sendToolInput({ arguments: args });
  await bridge.sendToolResult(await client.callTool({ name, arguments: args }));
  Object.assign(window, { bridge, client, shownCall: { name, arguments: args } });
}

connected()
  .then((client) => show(client, query.get("tool"), JSON.parse(query.get("arguments") || "{}")))
  .catch((error) => { document.body.append(String(error.stack || error)); });
