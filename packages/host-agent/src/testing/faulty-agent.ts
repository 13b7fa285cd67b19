/**
 * For tests: a host agent that meets faults where it is told to. It writes down each step that it ends, and looks before and after each,
 * and before each call within it that changes the disk, whether `testing/faults.ts` has asked for a fault there.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { pollUntil } from "@wrenn/system";
import type { Fault } from "./faults.ts";
import { interceptCalls } from "./intercept-calls.ts";

/** All that changes the disk, apart from what removes: that needs no space, and a step that is undone may depend on it. */
const functions = ["mkdir", "open", "link", "rename", "writeFile", "chown", "chmod"];
const ofHandles = ["sync", "truncate", "write", "writeFile", "chown", "chmod"];

interface Place {
  readonly operation: string;
  readonly step: string;
  calls: number;
}

const place = new AsyncLocalStorage<Place>();
const [faultsFile = "", stepsFile = "", holdFile = ""] = process.argv.slice(2);

/** Removes the fault from those that are asked for, and lets it happen. */
async function meet(operation: string, step: string, at: Fault["at"]): Promise<void> {
  const faults = JSON.parse(readFileSync(faultsFile, "utf8")) as Fault[];
  const [next, ...others] = faults;
  if (next === undefined || next.operation !== operation || next.step !== step || next.at !== at) return;
  writeFileSync(faultsFile, JSON.stringify(others));
  if (next.how === "hold") await pollUntil(async () => (existsSync(holdFile) ? null : true), { timeoutMs: 60_000 });
  else if (next.how === "kill") process.kill(process.pid, "SIGKILL");
  else if (next.how === "stop") process.kill(process.pid, "SIGTERM");
  else throw Object.assign(new Error(`${next.how}: asked for by a test`), { code: next.how });
}

async function runStep<Result>(operation: string, step: string, work: () => Promise<Result>): Promise<Result> {
  const here = { operation, step, calls: 0 };
  await meet(operation, step, "before");
  const result = await place.run(here, work);
  appendFileSync(stepsFile, `${JSON.stringify(here)}\n`);
  await meet(operation, step, "after");
  return result;
}

/** Counts the call within its step. */
async function beforeCall(name: string, args: readonly unknown[]): Promise<void> {
  const here = place.getStore();
  if (here === undefined || (name === "open" && !isForWriting(args[1]))) return;
  here.calls += 1;
  await meet(here.operation, here.step, here.calls);
}

function isForWriting(flags: unknown): boolean {
  return typeof flags === "string" && /[wa+]/.test(flags);
}

await interceptCalls({ functions, ofHandles }, beforeCall);
const { runAgentProcess } = await import("../agent-process.ts");
await runAgentProcess(runStep);
