/**
 * The read-only devices that disks lie on, one for each root filesystem and for each layer in use, each on the one below it. Which there
 * are and whether they are used only the kernel knows. The caller does one thing at a time here, or else one could be removed that has
 * just been found.
 */
import { stat } from "node:fs/promises";
import type { Layout } from "@wrenn/system";
import type { DiskChain } from "../disks.ts";
import { sectorBytes } from "./cow-file.ts";
import { createDevice, devicePath, findDevice, removeDevice, removeUnused } from "./device-mapper.ts";
import type { DeviceNames } from "./device-names.ts";
import { attachLoop, clearUnused, clearWhenUnused } from "./loop-devices.ts";
import {
  blockDevices,
  devicesAbove,
  devicesBelow,
  isSuspended,
  loopDevice,
  mappedName,
  sizeInSectors,
} from "./sysfs.ts";
import { filledTable, snapshotTable } from "./tables.ts";

export class SharedDevices {
  readonly #layout: Layout;
  readonly #names: DeviceNames;

  constructor(layout: Layout, names: DeviceNames) {
    this.#layout = layout;
    this.#names = names;
  }

  /** The path of a device with what the chain holds, made with all below it that is not there yet. */
  async ensure({ layers, rootfs }: DiskChain, sizeMib: number): Promise<string> {
    const [top, ...below] = layers;
    const sectors = sectorsOf(sizeMib);
    if (top === undefined) {
      const name = this.#names.base(rootfs, sizeMib);
      const rootfsSectors = Math.floor((await stat(rootfs)).size / sectorBytes);
      return this.#ensure(name, rootfs, sectors, async (loop) => filledTable(sectors, loop, rootfsSectors));
    }
    const file = this.#layout.layer(top).disk("dm-snapshot");
    return this.#ensure(this.#names.layer(top, sizeMib), file, sectors, async (loop) =>
      snapshotTable(sectors, await this.ensure({ layers: below, rootfs }, sizeMib), loop),
    );
  }

  /** Removes those of these devices that nothing lies on any more, and then what they lay on, in the same way. */
  async release(devices: readonly string[]): Promise<void> {
    for (const device of devices) {
      const name = await mappedName(device);
      if (name === null || !this.#names.isShared(name) || (await devicesAbove(device)).length > 0) continue;
      const below = await devicesBelow(device);
      const loops = (await Promise.all(below.map(loopDevice))).filter((loop) => loop !== null);
      if (!(await removeUnused(name))) continue;
      // They have gone with it, unless whoever made it was killed before it had said so.
      await clearUnused(loops);
      await this.release(below);
    }
  }

  /** Removes all that nothing lies on. */
  async releaseAll(): Promise<void> {
    await this.release(await blockDevices("dm-"));
  }

  async #ensure(
    name: string,
    file: string,
    sectors: number,
    table: (loop: string) => Promise<string>,
  ): Promise<string> {
    const there = await findDevice(name);
    if (there !== null && (await sizeInSectors(there)) === sectors && !(await isSuspended(there)))
      return devicePath(name);
    // Whoever made it was killed before it had a table, and so nothing can lie on it.
    if (there !== null) await removeDevice(name);
    const loop = await attachLoop(file, "read-only");
    try {
      await createDevice({ name, table: await table(`/dev/${loop}`), uid: null });
    } finally {
      await clearWhenUnused([loop]);
    }
    return devicePath(name);
  }
}

const sectorsPerMebibyte = 1_048_576 / sectorBytes;

export function sectorsOf(sizeMib: number): number {
  return sizeMib * sectorsPerMebibyte;
}
