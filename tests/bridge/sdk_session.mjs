// A session of a TypeScript SDK client through the bridge; returns the results.
// `call` calls a tool; `changed` resolves when the tool list has changed, after `subscribe`.
export async function session(client, call, changed, subscribe = async () => {}) {
  const text = (result) => result.content[0].text;
  const seen = { progress: [] };
  seen.tools = (await client.listTools()).tools.length;
  seen.echo = text(await call("echo", { text: "grün" }));
  seen.many = await Promise.all(
    Array.from({ length: 50 }, async (_, n) => text(await call("echo", { text: String(n) }))),
  );
  seen.count = text(
    await call("count", {}, { onprogress: (step) => seen.progress.push(step.progress) }),
  );
  seen.ask = text(await call("ask"));
  await subscribe();
  await call("change");
  seen.changed = await changed;
  const stop = new AbortController();
  const waiting = call("wait", {}, { signal: stop.signal, onprogress: () => stop.abort() });
  seen.aborted = await waiting.then(() => false, () => true);
  seen.cancelled = text(await call("was_cancelled"));
  await client.close();
  return seen;
}
