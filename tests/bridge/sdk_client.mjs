// A session of the TypeScript SDK's client through the bridge: `sdk_client.mjs NPM_FOLDER COMMAND…`.
// Prints what it saw as one JSON object.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

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
const seen = { progress: [] };
client.setRequestHandler(ElicitRequestSchema, () => ({
  action: "accept",
  content: { sure: true },
}));
const changed = new Promise((resolve) =>
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => resolve(true)),
);
const text = (result) => result.content[0].text;
const call = (name, given = {}, options) =>
  client.callTool({ name, arguments: given }, undefined, options);

await client.connect(new StdioClientTransport({ command, args, env: process.env }));
seen.tools = (await client.listTools()).tools.length;
seen.echo = text(await call("echo", { text: "grün" }));
seen.many = await Promise.all(
  Array.from({ length: 50 }, async (_, n) => text(await call("echo", { text: String(n) }))),
);
seen.count = text(
  await call("count", {}, { onprogress: (step) => seen.progress.push(step.progress) }),
);
seen.ask = text(await call("ask"));
await call("change");
seen.changed = await changed;
const stop = new AbortController();
const waiting = call("wait", {}, { signal: stop.signal, onprogress: () => stop.abort() });
seen.aborted = await waiting.then(() => false, () => true);
seen.cancelled = text(await call("was_cancelled"));
await client.close();
console.log(JSON.stringify(seen));
