/** `wrenn resume`. */
import { Sandbox } from "@wrenn/sdk";
import { tryEachSandbox } from "../try-each.ts";

export async function resumeSandboxes(given: readonly string[], flags: { json?: boolean }): Promise<number> {
  const options = { json: flags.json === true, doing: "resuming", done: "resumed" };
  return tryEachSandbox(given, options, (id, api) => Sandbox.resume(id, api));
}
