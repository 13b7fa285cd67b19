/** What the kernel's sysfs says of block devices: which there are, what they lie on and what lies on them. Nothing of it is remembered. */
import { readdir, readFile, readlink } from "node:fs/promises";
import path from "node:path";
import { hasErrno, isMissingFile } from "@wrenn/system";

const blockDirectory = "/sys/block";

export interface LoopDevice {
  /** For instance `loop7`. */
  readonly name: string;
  /** As the kernel names it: of a file that has been removed with ` (deleted)` behind it. */
  readonly file: string;
}

export async function blockDevices(prefix: "dm-" | "loop"): Promise<string[]> {
  return (await namesIn(blockDirectory)).filter((name) => name.startsWith(prefix));
}

/** Null when there is no file behind it any more, or it is no loop device. */
export async function loopDevice(name: string): Promise<LoopDevice | null> {
  const file = await attribute(name, "loop/backing_file");
  return file === null ? null : { name, file };
}

/** All that have a file. */
export async function loopDevices(): Promise<LoopDevice[]> {
  const found = await Promise.all((await blockDevices("loop")).map(loopDevice));
  return found.filter((loop) => loop !== null);
}

/** The name that a device-mapper device was given; null when there is no such device. */
export async function mappedName(device: string): Promise<string | null> {
  return attribute(device, "dm/name");
}

export async function isSuspended(device: string): Promise<boolean> {
  return (await attribute(device, "dm/suspended")) === "1";
}

export async function sizeInSectors(device: string): Promise<number> {
  return Number((await attribute(device, "size")) ?? 0);
}

/** The block devices that this one lies on. */
export async function devicesBelow(device: string): Promise<string[]> {
  return namesIn(path.join(blockDirectory, device, "slaves"));
}

/** The block devices that lie on this one. */
export async function devicesAbove(device: string): Promise<string[]> {
  return namesIn(path.join(blockDirectory, device, "holders"));
}

/** The kernel's name of the block device with these numbers, for instance `dm-3`; null when there is none. */
export async function deviceNumbered(rdev: number): Promise<string | null> {
  // As glibc puts them together (gnu_dev_major(3)); the kernel gives out no numbers of more than 32 bits.
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xf_ff00);
  try {
    return path.basename(await readlink(`/sys/dev/block/${major}:${minor}`));
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

async function attribute(device: string, name: string): Promise<string | null> {
  try {
    return (await readFile(path.join(blockDirectory, device, name), "utf8")).replace(/\n$/, "");
  } catch (error) {
    // A device that goes away while it is looked at.
    if (isMissingFile(error) || hasErrno(error, "ENODEV") || hasErrno(error, "ENXIO")) return null;
    throw error;
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
