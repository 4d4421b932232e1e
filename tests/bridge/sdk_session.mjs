// A session of a TypeScript SDK client through the bridge; returns the results.
// `call` calls a tool; `changed` resolves when the tool list has changed, after `subscribe`.
export async function session(client, call, changed, subscribe = async () => {}) {
  const text = (result) => result.content[0].text;
  const results = { progress: [] };
  results.tools = (await client.listTools()).tools.length;
  results.echo = text(await call("echo", { text: "grün" }));
  results.many = await Promise.all(
    Array.from({ length: 50 }, async (_, n) => text(await call("echo", { text: String(n) }))),
  );
  results.count = text(
    await call("count", {}, { onprogress: (step) => results.progress.push(step.progress) }),
  );
  results.ask = text(await call("ask"));
  await subscribe();
  await call("change");
  results.changed = await changed;
  const stop = new AbortController();
  const waiting = call("wait", {}, { signal: stop.signal, onprogress: () => stop.abort() });
  results.aborted = await waiting.then(() => false, () => true);
  results.cancelled = text(await call("was_cancelled"));
  await client.close();
  return results;
}
