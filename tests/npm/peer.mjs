// Answers lines of {"work": "encode" | "decode" | "tokens", "input": …, "options": {…}}, one line each.
// The first argument is the folder that holds node_modules.
import { createInterface } from "node:readline";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const load = (path) => import(pathToFileURL(join(process.argv[2], "node_modules", path)));
const loaded = {};
const toon = async () => (loaded.toon ??= await load("@toon-format/toon/dist/index.mjs"));
const tokenizer = async () =>
  (loaded.tokens ??= await load("gpt-tokenizer/esm/encoding/o200k_base.js"));

const workers = {
  encode: async ({ input, options }) => (await toon()).encode(input, options),
  decode: async ({ input, options }) => (await toon()).decode(input, options),
  tokens: async ({ input }) => (await tokenizer()).countTokens(input),
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  try {
    console.log(JSON.stringify({ output: await workers[order.work](order) }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
