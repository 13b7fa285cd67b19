/** Sandboxes of `wrenn run` whose command line has been killed before it could destroy them. */
import { readlink } from "node:fs/promises";
import type { Sandbox, WrennClient } from "@wrenn/sdk";
import { identifyProcess, isAlive, processIdentitySchema } from "@wrenn/system";
import { z } from "zod";

/** Metadata keys of a run's sandbox: which run it is of, and which process destroys it in the end. */
const runKey = "wrenn.run";
const ownerKey = "wrenn.run.owner";

const ownerSchema = z.object({
  process: processIdentitySchema,
  /** Pids mean nothing in another pid namespace, nor on another machine. */
  pidNamespace: z.string(),
});
export type RunOwner = z.infer<typeof ownerSchema>;

/** This process, as the owner of a run. */
export async function thisProcess(): Promise<RunOwner> {
  const self = await identifyProcess(process.pid);
  if (self === null) throw new Error("/proc does not show this process");
  return { process: self, pidNamespace: await readPidNamespace() };
}

/** What marks a sandbox as that of a run; with an owner, it is destroyed once that process is gone. */
export function runMetadata(run: string, owner?: RunOwner): Record<string, string> {
  return { [runKey]: run, ...(owner === undefined ? {} : { [ownerKey]: JSON.stringify(owner) }) };
}

/** Destroys the sandboxes of runs whose process is gone. Returns their ids; a failure is left to the next time. */
export async function destroyAbandonedRuns(client: WrennClient): Promise<string[]> {
  const destroyed: string[] = [];
  for (const sandbox of await client.sandboxes.list()) {
    if (!(await isAbandoned(sandbox))) continue;
    await sandbox.destroy();
    destroyed.push(sandbox.id);
  }
  return destroyed;
}

/** The sandbox of a run, whatever its status; null when there is none (yet). */
export async function findSandboxOfRun(client: WrennClient, run: string): Promise<Sandbox | null> {
  const sandboxes = await client.sandboxes.list();
  return sandboxes.find((sandbox) => sandbox.info.metadata[runKey] === run) ?? null;
}

async function isAbandoned(sandbox: Sandbox): Promise<boolean> {
  const owner = readOwner(sandbox);
  if (owner === null || owner.pidNamespace !== (await readPidNamespace())) return false;
  return !(await isAlive(owner.process));
}

function readOwner(sandbox: Sandbox): RunOwner | null {
  const text = sandbox.info.metadata[ownerKey];
  if (text === undefined) return null;
  try {
    return ownerSchema.parse(JSON.parse(text));
  } catch {
    // Metadata is the user's: anything else under this key is none of ours.
    return null;
  }
}

async function readPidNamespace(): Promise<string> {
  return readlink("/proc/self/ns/pid");
}
