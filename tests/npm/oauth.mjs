// The official TypeScript clients with OAuth: `oauth.mjs NODE_MODULES URL http|sse|modern`.
// Opens the authorization URL as a browser would, calls a tool, lets its tokens expire, asks for a
// wider scope; prints what it has seen as JSON. With CREDENTIAL in the environment, it sends that as an
// X-API-Key first, and prints the error.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, transport] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(join(folder, "node_modules/@modelcontextprotocol", path)));
const about = { name: "typescript", version: "1" };
const redirectUrl = "http://localhost:33419/callback";
const seen = { scopes: [], texts: [] };
const kept = {};
const wrongKey = process.env.CREDENTIAL;

const provider = {
  redirectUrl,
  clientMetadata: {
    client_name: "TypeScript SDK",
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => "s-1",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (state) => (kept.discovery = state),
  async redirectToAuthorization(authorization) {
    seen.scopes.push(authorization.searchParams.get("scope"));
    const answer = await fetch(authorization, { redirect: "manual" });
    kept.answer = new URL(answer.headers.get("location")).searchParams;
    if (kept.answer.get("state") !== "s-1") throw new Error("state");
  },
};

async function sdk() {
  const requestInit = wrongKey ? { headers: { "X-API-Key": wrongKey } } : {};
  const options = { authProvider: provider, requestInit };
  if (transport === "modern") {
    const { Client, StreamableHTTPClientTransport } = await load("client/dist/index.mjs");
    return {
      client: () => new Client(about, { versionNegotiation: { mode: { pin: "2026-07-28" } } }),
      transport: () => new StreamableHTTPClientTransport(new URL(url), options),
      finish: (open) => open.finishAuth(kept.answer),
    };
  }
  const { Client } = await load("sdk/dist/esm/client/index.js");
  const { StreamableHTTPClientTransport } = await load("sdk/dist/esm/client/streamableHttp.js");
  const { SSEClientTransport } = await load("sdk/dist/esm/client/sse.js");
  const Transport = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  return {
    client: () => new Client(about),
    transport: () => new Transport(new URL(url), options),
    finish: (open) => open.finishAuth(kept.answer.get("code")),
  };
}

const { client: made, transport: opened, finish } = await sdk();
let client;
let open;

async function connect() {
  for (let attempt = 0; ; attempt += 1) {
    [client, open] = [made(), opened()];
    try {
      await client.connect(open);
      return;
    } catch (error) {
      if (attempt > 0 || !kept.answer) throw error;
      await finish(open);
    }
  }
}

async function call(name) {
  const result = await client.callTool({ name, arguments: { vmid: 101 } });
  seen.texts.push(result.content[0].text);
}

try {
  await connect();
  await call("GetThing");
  // an access token that the server does not take (any more): refreshed without the user
  const before = kept.tokens.refresh_token;
  kept.tokens = { ...kept.tokens, access_token: `${kept.tokens.access_token.slice(0, -1)}-` };
  await call("GetThing");
  seen.refreshed = kept.tokens.refresh_token !== before;
  kept.answer = undefined;
  try {
    await call("StartThing");
  } catch (error) {
    if (!kept.answer) throw error;
    await finish(open);
    await call("StartThing");
  }
  await client.close();
} catch (error) {
  seen.error = String(error.message);
}
console.log(JSON.stringify(seen));
process.exit(0);
