/**
 * For tests: a process that does one thing with frozen states, and at a given one of its calls of the file system is killed, or is told
 * that the disk is full. Prints what it has reached, and at last how many calls there were.
 */
import { writeSync } from "node:fs";
import { parseUuid } from "@wrenn/contract";
import { interceptCalls } from "../../testing/intercept-calls.ts";
import type { OperationName } from "./operations.ts";

/** All that changes the disk: reading leaves nothing half done. */
const functions = ["mkdir", "open", "rename", "rm", "writeFile"];
const ofHandles = ["sync", "truncate", "writeFile"];

let onCall = (): void => undefined;

/** At once: what is buffered is lost with a process that is killed. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const [root = "", name, base = "", at, how] = process.argv.slice(2);
await interceptCalls({ functions, ofHandles }, () => {
  onCall();
});
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
