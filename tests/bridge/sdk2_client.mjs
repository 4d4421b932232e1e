// A session of the TypeScript SDK 2 through the bridge: `sdk2_client.mjs NPM_FOLDER MODE COMMAND…`.
// MODE selects the revision: legacy, auto, or an exact one. Prints the results as JSON.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { session } from "./sdk_session.mjs";

const [folder, mode, command, ...args] = process.argv.slice(2);
const sdk = (path) =>
  import(pathToFileURL(join(folder, "node_modules/@modelcontextprotocol/client/dist", path)));
const { Client } = await sdk("index.mjs");
const { StdioClientTransport } = await sdk("stdio.mjs");

const client = new Client(
  { name: "trial", version: "1" },
  {
    capabilities: { elicitation: { form: {} } },
    versionNegotiation: { mode: ["legacy", "auto"].includes(mode) ? mode : { pin: mode } },
  },
);
client.setRequestHandler("elicitation/create", () => ({
  action: "accept",
  content: { sure: true },
}));
const changed = new Promise((resolve) =>
  client.setNotificationHandler("notifications/tools/list_changed", () => resolve(true)),
);
const call = (name, toolArguments = {}, options) => client.callTool({ name, arguments: toolArguments }, options);

await client.connect(new StdioClientTransport({ command, args, env: process.env }));
const modern = client.getProtocolEra() === "modern";
const subscribe = () => modern && client.listen({ toolsListChanged: true });
const results = await session(client, call, changed, subscribe);
console.log(JSON.stringify({ modern, ...results }));
