// The official TypeScript client against a server: `client.mjs NODE_MODULES URL http|sse`.
// Lists, calls, sees progress, answers a question and cancels; prints what it saw as JSON.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, transport] = process.argv.slice(2);
const sdk = (path) =>
  import(pathToFileURL(join(folder, "node_modules/@modelcontextprotocol/sdk/dist/esm", path)));
const { Client } = await sdk("client/index.js");
const { StreamableHTTPClientTransport } = await sdk("client/streamableHttp.js");
const { SSEClientTransport } = await sdk("client/sse.js");
const { CallToolResultSchema, ElicitRequestSchema } = await sdk("types.js");

const Transport = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
const client = new Client(
  { name: "typescript", version: "1" },
  { capabilities: { elicitation: {} } },
);
const seen = { progress: [], asked: [] };
client.setRequestHandler(ElicitRequestSchema, async (request) => {
  seen.asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new Transport(new URL(url)));
seen.server = client.getServerVersion().name;
seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
const text = (result) => result.content[0].text;
seen.called = text(await client.callTool({ name: "GetThing", arguments: { vmid: 101 } }));
seen.deleted = text(await client.callTool({ name: "DeleteThing", arguments: { vmid: 101 } }));

const stop = new AbortController();
const waiting = client.callTool({ name: "Wait", arguments: { steps: 1 } }, CallToolResultSchema, {
  signal: stop.signal,
  onprogress: (progress) => {
    seen.progress.push(progress.message);
    stop.abort("seen enough");
  },
});
seen.cancelled = await waiting.then(() => false, () => true);
await client.ping(); // closing at once would overtake the notice of cancellation
await client.close();
console.log(JSON.stringify(seen));
