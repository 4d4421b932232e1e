// The official TypeScript client against a server: `client.mjs NODE_MODULES URL http|sse|modern`.
// Version 1 of the SDK over both transports of sessions, version 2 in 2026-07-28.
// Lists tools, calls them with progress, answers elicitations and cancels; prints the results as JSON.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, transport] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(join(folder, "node_modules/@modelcontextprotocol", path)));
const about = { name: "typescript", version: "1" };
const capabilities = { elicitation: {} };

async function first() {
  const { Client } = await load("sdk/dist/esm/client/index.js");
  const { StreamableHTTPClientTransport } = await load("sdk/dist/esm/client/streamableHttp.js");
  const { SSEClientTransport } = await load("sdk/dist/esm/client/sse.js");
  const { CallToolResultSchema, ElicitRequestSchema } = await load("sdk/dist/esm/types.js");
  const Transport = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  const client = new Client(about, { capabilities });
  return {
    client,
    connected: () => client.connect(new Transport(new URL(url))),
    onQuestion: (answer) => client.setRequestHandler(ElicitRequestSchema, answer),
    call: (params, options) => client.callTool(params, CallToolResultSchema, options),
    version: () => "a session",
  };
}

async function second() {
  const { Client, StreamableHTTPClientTransport } = await load("client/dist/index.mjs");
  const versionNegotiation = { mode: { pin: "2026-07-28" } };
  const client = new Client(about, { capabilities, versionNegotiation });
  return {
    client,
    connected: () => client.connect(new StreamableHTTPClientTransport(new URL(url))),
    onQuestion: (answer) => client.setRequestHandler("elicitation/create", answer),
    call: (params, options) => client.callTool(params, options),
    version: () => client.getNegotiatedProtocolVersion(),
  };
}

const sdk = await (transport === "modern" ? second() : first());
const seen = { progress: [], asked: [] };
const answers = [{ action: "accept", content: { confirm: true } }, { action: "decline" }];
sdk.onQuestion(async (request) => {
  seen.asked.push(request.params.message);
  return answers.shift();
});
await sdk.connected();
seen.version = sdk.version();
seen.server = sdk.client.getServerVersion().name;
seen.tools = (await sdk.client.listTools()).tools.map((tool) => tool.name);
const text = (result) => result.content[0].text;
seen.called = text(await sdk.call({ name: "GetThing", arguments: { vmid: 101 } }));
seen.deleted = text(await sdk.call({ name: "DeleteThing", arguments: { vmid: 101 } }));
seen.kept = text(await sdk.call({ name: "DeleteThing", arguments: { vmid: 102 } }));

const stop = new AbortController();
const waiting = sdk.call({ name: "Wait", arguments: { steps: 1 } }, {
  signal: stop.signal,
  onprogress: (progress) => {
    seen.progress.push(progress.message);
    stop.abort("seen enough");
  },
});
seen.cancelled = await waiting.then(() => false, () => true);
await sdk.client.listTools(); // closing at once would overtake the cancellation
await sdk.client.close();
console.log(JSON.stringify(seen));
