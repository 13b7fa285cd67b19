/** `wrenn pause`. */
import { Sandbox } from "@wrenn/sdk";
import { tryEachSandbox } from "../try-each.ts";

export async function pauseSandboxes(given: readonly string[], flags: { json?: boolean }): Promise<number> {
  const options = { json: flags.json === true, doing: "pausing", done: "paused" };
  return tryEachSandbox(given, options, (id, api) => Sandbox.pause(id, api));
}
