// A session of the TypeScript SDK 2 through the bridge: `sdk2_client.mjs NPM_FOLDER MODE COMMAND…`.
// MODE is how it finds the revision: legacy, auto, or one to insist on. Prints what it saw as JSON.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

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
const text = (result) => result.content[0].text;
const call = (name, given = {}, options) => client.callTool({ name, arguments: given }, options);

await client.connect(new StdioClientTransport({ command, args, env: process.env }));
const modern = client.getProtocolEra() === "modern";
const seen = { modern, progress: [] };
seen.tools = (await client.listTools()).tools.length;
seen.echo = text(await call("echo", { text: "grün" }));
seen.many = await Promise.all(
  Array.from({ length: 50 }, async (_, n) => text(await call("echo", { text: String(n) }))),
);
seen.count = text(
  await call("count", {}, { onprogress: (step) => seen.progress.push(step.progress) }),
);
seen.ask = text(await call("ask"));
if (modern) await client.listen({ toolsListChanged: true });
await call("change");
seen.changed = await changed;
const stop = new AbortController();
const waiting = call("wait", {}, { signal: stop.signal, onprogress: () => stop.abort() });
seen.aborted = await waiting.then(() => false, () => true);
seen.cancelled = text(await call("was_cancelled"));
await client.close();
console.log(JSON.stringify(seen));
