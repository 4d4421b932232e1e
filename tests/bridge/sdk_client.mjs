// A session of the TypeScript SDK's client through the bridge: `sdk_client.mjs NPM_FOLDER COMMAND…`.
// Prints the results as one JSON object.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { session } from "./sdk_session.mjs";

const [folder, command, ...args] = process.argv.slice(2);
const sdk = (path) =>
  import(pathToFileURL(join(folder, "node_modules/@modelcontextprotocol/sdk/dist/esm", path)));
const { Client } = await sdk("client/index.js");
const { StdioClientTransport } = await sdk("client/stdio.js");
const { ElicitRequestSchema, ToolListChangedNotificationSchema } = await sdk("types.js");

const client = new Client(
  { name: "trial", version: "1" },
  { capabilities: { elicitation: { form: {} } } },
);
client.setRequestHandler(ElicitRequestSchema, () => ({
  action: "accept",
  content: { sure: true },
}));
const changed = new Promise((resolve) =>
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => resolve(true)),
);
const call = (name, toolArguments = {}, options) =>
  client.callTool({ name, arguments: toolArguments }, undefined, options);

await client.connect(new StdioClientTransport({ command, args, env: process.env }));
console.log(JSON.stringify(await session(client, call, changed)));
