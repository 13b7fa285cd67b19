/** Sandboxes of `wrenn run` whose command line has been killed before it could destroy them. */
import { readlink } from "node:fs/promises";
import { deadlines, describeError } from "@wrenn/contract";
import { type ConnectionOptions, Sandbox, type SandboxInfo } from "@wrenn/sdk";
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

/** Milliseconds. The API answers a list within a fraction of this, or says that it cannot. */
const listTimeoutMs = 15_000;

/** Destroys the sandboxes of runs whose process is gone, until aborted. What fails is left to the next time. */
export async function destroyAbandonedRuns(
  api: ConnectionOptions,
  report: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for await (const sandbox of Sandbox.list({ ...api, signal, requestTimeoutMs: listTimeoutMs })) {
    if (!(await isAbandoned(sandbox))) continue;
    try {
      await Sandbox.destroy(sandbox.id, { ...api, signal, requestTimeoutMs: deadlines.destroySandbox });
      report(`destroyed ${sandbox.id}: the command line that ran it is gone`);
    } catch (error) {
      signal.throwIfAborted();
      report(`${sandbox.id}, whose command line is gone, could not be destroyed yet: ${describeError(error)}`);
    }
  }
}

/** The sandbox of a run, whatever its status; null when there is none (yet). */
export async function findSandboxOfRun(
  api: ConnectionOptions,
  run: string,
  signal: AbortSignal,
): Promise<SandboxInfo | null> {
  for await (const sandbox of Sandbox.list({ ...api, signal })) {
    if (sandbox.metadata[runKey] === run) return sandbox;
  }
  return null;
}

async function isAbandoned(sandbox: SandboxInfo): Promise<boolean> {
  const owner = readOwner(sandbox);
  if (owner === null || owner.pidNamespace !== (await readPidNamespace())) return false;
  return !(await isAlive(owner.process));
}

function readOwner(sandbox: SandboxInfo): RunOwner | null {
  const text = sandbox.metadata[ownerKey];
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
