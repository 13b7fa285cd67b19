/** Device-mapper's devices: made, changed and removed by `dmsetup`, one call each, and looked at in sysfs. */
import { stat } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { isMissingFile, pollUntil, runUnchecked } from "@wrenn/system";
import { blockDevices, deviceNumbered, mappedName } from "./sysfs.ts";

export interface NewDevice {
  readonly name: string;
  readonly table: string;
  /** Who alone may read and write it. Null: root reads it, and nobody writes. */
  readonly uid: number | null;
}

/**
 * The nodes in /dev/mapper are made by dmsetup itself, with their owner, before it ends; udev, where there is one, is told to keep off, and
 * is not waited for.
 */
const withoutUdev = ["--noudevsync", "--noudevrules", "--verifyudev"] as const;

/** What has just let go of a device, and udev where it runs, may hold it for a moment. */
const releaseMs = 5_000;

/** What only looks at a device that nothing lies on has closed it by then. */
const glanceMs = 300;

export function devicePath(name: string): string {
  return `/dev/mapper/${name}`;
}

/** @throws WrennError `disk_setup_failed` */
export async function createDevice({ name, table, uid }: NewDevice): Promise<void> {
  const owner = uid === null ? ["--readonly"] : ["--uid", String(uid), "--gid", String(uid), "--mode", "0600"];
  await dmsetup(["create", ...withoutUdev, ...owner, "--table", table, name]);
}

/** Lets what is under way end and writes back what the kernel has cached for the device; whoever uses it from then on waits. */
export async function suspendDevice(name: string): Promise<void> {
  await dmsetup(["suspend", ...withoutUdev, name]);
}

/** The table that counts after the next resume. */
export async function loadTable(name: string, table: string): Promise<void> {
  await dmsetup(["load", "--table", table, name]);
}

export async function resumeDevice(name: string): Promise<void> {
  await dmsetup(["resume", ...withoutUdev, name]);
}

/** Forgets a table that was loaded and does not count yet. */
export async function forgetLoadedTable(name: string): Promise<void> {
  await dmsetup(["clear", name]);
}

/** Whether the kernel has given a snapshot up. False when there is no such device. */
export async function isInvalid(name: string): Promise<boolean> {
  const { exitCode, stdout } = await attempt(["status", name]);
  return exitCode === 0 && /^\d+ \d+ snapshot Invalid\b/.test(stdout);
}

/**
 * Removes a device that is about to be let go of.
 * @throws WrennError `disk_setup_failed` with dmsetup's words when something still holds it after a while
 */
export async function removeDevice(name: string): Promise<void> {
  const words = await remove(name, releaseMs);
  if (words === null) return;
  throw new WrennError("disk_setup_failed", { message: `${name} cannot be removed: ${words}` });
}

/** Removes a device unless something uses it. Whether it is gone then. */
export async function removeUnused(name: string): Promise<boolean> {
  return (await remove(name, glanceMs)) === null;
}

/** Tries it until this time has passed. Null once it is gone, else dmsetup's words. */
async function remove(name: string, timeoutMs: number): Promise<string | null> {
  let words = "";
  const gone = await pollUntil(
    async () => {
      const { exitCode, stderr } = await attempt(["remove", ...withoutUdev, name]);
      words = stderr.trim();
      return exitCode === 0 || (await findDevice(name)) === null ? true : null;
    },
    { timeoutMs, intervalMs: 50 },
  );
  return gone === null ? words : null;
}

/** The kernel's name of a device, for instance `dm-3`; null when there is none of this name. */
export async function findDevice(name: string): Promise<string | null> {
  const byNode = await deviceOfNode(devicePath(name));
  if (byNode !== null && (await mappedName(byNode)) === name) return byNode;
  // A dmsetup that was killed may not have made the node.
  for (const device of await blockDevices("dm-")) if ((await mappedName(device)) === name) return device;
  return null;
}

async function deviceOfNode(node: string): Promise<string | null> {
  try {
    return await deviceNumbered((await stat(node)).rdev);
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

async function dmsetup(args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await attempt(args);
  if (exitCode === 0) return;
  throw new WrennError("disk_setup_failed", { message: `dmsetup ${args.join(" ")}: ${stderr.trim()}` });
}

async function attempt(args: readonly string[]): ReturnType<typeof runUnchecked> {
  return runUnchecked("dmsetup", args, { timeoutMs: deadlines.diskCommand });
}
