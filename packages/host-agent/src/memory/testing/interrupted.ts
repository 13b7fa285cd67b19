/**
 * For tests: a process that does one thing with frozen states, and at a given one of its calls of the file system is killed, or is told
 * that the disk is full. Prints what it has reached, and at last how many calls there were.
 */
import { writeSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { parseUuid } from "@wrenn/contract";
import type { OperationName } from "./operations.ts";

/** All that changes the disk: reading leaves nothing half done. */
const calls = ["mkdir", "open", "rename", "rm", "writeFile"];
const handleCalls = ["sync", "truncate", "writeFile"];

let onCall = (): void => undefined;

/** Works on modules that take these functions from `node:fs/promises` when they are loaded, so none may have been. */
async function interceptCalls(): Promise<void> {
  const handle = await fs.open("/dev/null");
  await handle.close();
  intercept(fs, calls);
  intercept(Object.getPrototypeOf(handle) as object, handleCalls);
  syncBuiltinESMExports();
}

function intercept(target: object, names: readonly string[]): void {
  for (const name of names) {
    const original = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
    Reflect.set(target, name, async function (this: unknown, ...args: unknown[]) {
      onCall();
      return original.apply(this, args);
    });
  }
}

/** At once: what is buffered is lost with a process that is killed. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const [root = "", name, base = "", at, how] = process.argv.slice(2);
await interceptCalls();
const { TestStates } = await import("./states.ts");
const { perform } = await import("./operations.ts");
const states = await TestStates.open(root);
const manifest = await states.generations.read(parseUuid("generation", base));
let count = 0;
onCall = () => {
  count += 1;
  if (count !== Number(at)) return;
  if (how === "full") throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  process.kill(process.pid, "SIGKILL");
};
await perform(name as OperationName, states, manifest, say);
say(`calls ${count}`);
