/** A process named so that a reused pid is never taken for it: pid and start time, as /proc gives them. */
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { hasErrno, isMissingFile } from "./durable-file.ts";

export const processIdentitySchema = z.object({
  pid: z.number().int().positive(),
  /** Clock ticks after boot (field 22 of /proc/pid/stat, proc(5)). */
  startTime: z.string(),
  /** Start times of different boots are not comparable. */
  bootId: z.string(),
});
export type ProcessIdentity = z.infer<typeof processIdentitySchema>;

/** How often a process that should end is looked at. */
const pollMs = 10;

let bootId: string | undefined;

/** An id of this boot of the machine. */
export async function readBootId(): Promise<string> {
  bootId ??= (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return bootId;
}

/** Who has this pid now, or null. A zombie counts as gone, unless it is only the first thread that has ended: others may run on. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | null> {
  let stat: string;
  try {
    stat = await readFile(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ESRCH")) return null;
    throw error;
  }
  // The second field is the program's name in parentheses, which may itself contain anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const threads = Number(fields[17]);
  const startTime = fields[19];
  const ended = state === "X" || (state === "Z" && threads <= 1);
  if (ended || startTime === undefined) return null;
  return { pid, startTime, bootId: await readBootId() };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid);
  return now !== null && now.startTime === identity.startTime && now.bootId === identity.bootId;
}

/** Sends a signal to the process if it is still the one that was meant. */
export async function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(identity))) return;
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if (!hasErrno(error, "ESRCH")) throw error;
  }
}

/** Resolves true once the process is gone, false when it still lives after the deadline. */
export async function waitForExit(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while (await isAlive(identity)) {
    if (Date.now() > deadline) return false;
    await delay(pollMs);
  }
  return true;
}

/** Asks a process to end, and kills it when it has not by the deadline. */
export async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<void> {
  await signalProcess(identity, "SIGTERM");
  if (await waitForExit(identity, graceMs)) return;
  await signalProcess(identity, "SIGKILL");
  await waitForExit(identity, graceMs);
}
