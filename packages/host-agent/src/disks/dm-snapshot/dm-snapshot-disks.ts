/**
 * Disks as block devices that the kernel's device-mapper makes: what a sandbox writes goes to a sparse file, which lies over a device with
 * the frozen state that it was started from. An engine is given the device alone; the files are root's.
 */
import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import path from "node:path";
import { type DiskFormat, type LayerId, type SandboxId, WrennError } from "@wrenn/contract";
import { fileIdentity, isMissingFile, type Layout, makeDirectory, tryAll } from "@wrenn/system";
import { passable } from "../../directories.ts";
import type { VirtualMachine, VmDisk } from "../../engines/engine.ts";
import type { DiskChain, Disks, FlattenOptions, SandboxDisk } from "../disks.ts";
import { damaged, isSealed, linkAsLayer, makeLast, removeOverlay, seal, withRegularFile } from "../overlay-files.ts";
import { cowFileBytes, encodeHeader, makeValid, readState } from "./cow-file.ts";
import {
  createDevice,
  devicePath,
  findDevice,
  forgetLoadedTable,
  isInvalid,
  loadTable,
  removeDevice,
  resumeDevice,
  suspendDevice,
} from "./device-mapper.ts";
import { DeviceNames } from "./device-names.ts";
import { attachLoop, clearUnused, clearWhenUnused } from "./loop-devices.ts";
import { type Changes, mergeChanges } from "./merge.ts";
import { SharedDevices, sectorsOf } from "./shared-devices.ts";
import {
  blockDevices,
  devicesBelow,
  isSuspended,
  type LoopDevice,
  loopDevice,
  loopDevices,
  mappedName,
} from "./sysfs.ts";
import { snapshotTable } from "./tables.ts";

const mebibyte = 1_048_576;

const notChanges = "does not hold the changes of a disk, or not all of them";

export class DmSnapshotDisks implements Disks {
  readonly format: DiskFormat = "dm-snapshot";
  readonly openedAs: VmDisk["format"] = "raw";
  readonly #layout: Layout;
  readonly #names: DeviceNames;
  readonly #shared: SharedDevices;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(layout: Layout) {
    this.#layout = layout;
    this.#names = new DeviceNames(layout.root);
    this.#shared = new SharedDevices(layout, this.#names);
  }

  async createOverlay({ file, sizeMib }: SandboxDisk): Promise<void> {
    const handle = await open(file, "wx", 0o600);
    try {
      await handle.write(encodeHeader(), 0, undefined, 0);
      await handle.truncate(cowFileBytes(sizeMib * mebibyte));
    } finally {
      await handle.close();
    }
  }

  async attach(disk: SandboxDisk): Promise<VmDisk> {
    const name = this.#names.sandbox(disk.sandboxId);
    await mend(disk.file);
    const loop = await attachLoop(disk.file, "read-write");
    try {
      await this.#inTurn(async () => {
        const below = await this.#shared.ensure(disk.below, disk.sizeMib);
        const device = { name, table: snapshotTable(sectorsOf(disk.sizeMib), below, `/dev/${loop}`), uid: disk.uid };
        try {
          await createDevice(device);
        } catch (error) {
          if ((await findDevice(name)) === null) throw error;
          // It is that of an engine that has ended.
          await removeDevice(name);
          await createDevice(device);
        }
      });
    } finally {
      await clearWhenUnused([loop]);
    }
    return { path: devicePath(name), format: "raw" };
  }

  async detach(id: SandboxId): Promise<void> {
    const name = this.#names.sandbox(id);
    const device = await findDevice(name);
    const below = device === null ? [] : await devicesBelow(device);
    if (device !== null) await removeDevice(name);
    // The loop device of the overlay has gone with it, unless whoever made it was killed before it had said so.
    await clearUnused(device === null ? await this.#loopsIn(this.#layout.sandbox(id).directory) : await loopsOf(below));
    await this.#inTurn(() => this.#shared.release(below));
  }

  async keepAsLayer({ sandboxId, file }: Pick<SandboxDisk, "sandboxId" | "file">, layer: LayerId): Promise<void> {
    const name = this.#names.sandbox(sandboxId);
    try {
      await writeBack(devicePath(name));
    } finally {
      // That it has failed says more than the error by which it did.
      await assertSound(name);
    }
    await linkAsLayer(file, this.#file(layer));
  }

  async sealTop({ layers: [top] }: DiskChain): Promise<void> {
    if (top === undefined) return;
    const file = this.#file(top);
    await withRegularFile(file, async (handle) => {
      await seal(handle);
      if ((await readState(handle)) !== "valid") throw damaged(file, notChanges);
    });
  }

  /** The device stays open in its engine, and changes below it. */
  async switchOverlay(_vm: Pick<VirtualMachine, "switchDisk">, next: SandboxDisk): Promise<void> {
    const { layers, rootfs } = next.below;
    const [kept] = layers;
    if (kept === undefined) throw new WrennError("internal", { message: `${next.file} lies over no layer.` });
    const name = this.#names.sandbox(next.sandboxId);
    const loop = await attachLoop(next.file, "read-write");
    try {
      await this.#inTurn(async () => {
        try {
          // Everything is in the present overlay's file then, and nothing is added to it: as a layer it can have a device of its own.
          await suspendDevice(name);
          await assertSound(name);
          await makeLast(this.#file(kept));
          const below = await this.#shared.ensure({ layers, rootfs }, next.sizeMib);
          await loadTable(name, snapshotTable(sectorsOf(next.sizeMib), below, `/dev/${loop}`));
        } finally {
          // Also where nothing else is to be done: what is written to a suspended device waits for ever, and cannot be killed.
          await resumeDevice(name);
        }
      });
    } finally {
      await clearWhenUnused([loop]);
    }
  }

  async finishSwitch({ sandboxId }: Pick<SandboxDisk, "sandboxId">, next: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const device = await this.#wake(this.#names.sandbox(sandboxId));
      const present = device === null ? [] : await loopsOf(await devicesBelow(device));
      const target = await realpath(next);
      const isSwitched = present.some(({ file }) => file === target);
      // What was made for a switch that has not happened.
      await clearUnused(await this.#loopsIn(path.dirname(next)));
      await this.#shared.releaseAll();
      return isSwitched;
    });
  }

  async flatten({ chain, sizeMib, target }: FlattenOptions, signal: AbortSignal): Promise<void> {
    const file = this.#file(target);
    await makeDirectory(path.dirname(file), passable);
    await removeOverlay(file);
    const merged = await open(file, "wx", 0o600);
    try {
      const layers = chain.layers.map((layer) => this.#file(layer));
      await withSealed(layers, (opened) => mergeChanges(opened, sizeMib * mebibyte, merged, signal));
      await seal(merged);
    } finally {
      await merged.close();
    }
    await makeLast(file);
  }

  async hasFailed(overlay: string): Promise<boolean> {
    return (await fileIdentity(overlay)) !== null && (await withRegularFile(overlay, readState)) === "failed";
  }

  async clear(attached: readonly SandboxId[]): Promise<void> {
    const kept = new Set(attached.map((id) => this.#names.sandbox(id)));
    const names = (await Promise.all((await blockDevices("dm-")).map(mappedName))).filter((name) => name !== null);
    await this.#inTurn(() =>
      tryAll([
        ...names
          .filter((name) => this.#names.isSandbox(name))
          .map((name) =>
            kept.has(name)
              ? { name: `wake ${name}`, run: async () => void (await this.#wake(name)) }
              : { name: `remove ${name}`, run: () => removeDevice(name) },
          ),
        { name: "remove what nothing lies on", run: () => this.#shared.releaseAll() },
        { name: "clear loop devices", run: async () => clearUnused(await this.#loopsIn(this.#layout.root)) },
      ]),
    );
  }

  /** A device whose overlay was being switched goes on with the one that counts; null when there is none. */
  async #wake(name: string): Promise<string | null> {
    const device = await findDevice(name);
    if (device !== null && (await isSuspended(device))) {
      // Otherwise it would count from now on.
      await forgetLoadedTable(name);
      await resumeDevice(name);
    }
    return device;
  }

  /** The loop devices of files in a directory, which need not be there any more. */
  async #loopsIn(directory: string): Promise<LoopDevice[]> {
    const { root } = this.#layout;
    const prefix = path.join(await realpath(root), path.relative(root, directory), path.sep);
    return (await loopDevices()).filter(({ file }) => file.startsWith(prefix));
  }

  #file(layer: LayerId): string {
    return this.#layout.layer(layer).disk(this.format);
  }

  /** One at a time, for all that makes or removes shared devices. */
  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/**
 * An overlay that the kernel has given up is used again: what is attached anew was ended by that, or by something else. So is one whose
 * header a power cut has kept from the host's disk.
 */
async function mend(overlay: string): Promise<void> {
  const handle = await open(overlay, constants.O_RDWR | constants.O_NOFOLLOW);
  try {
    const state = await readState(handle);
    if (state === null) throw damaged(overlay, notChanges);
    if (state !== "valid") await makeValid(handle);
  } finally {
    await handle.close();
  }
}

/** Writes what the kernel has cached for a device into the files below it; nothing when there is no such device. */
async function writeBack(device: string): Promise<void> {
  let handle;
  try {
    handle = await open(device, "r");
  } catch (error) {
    if (isMissingFile(error)) return;
    throw error;
  }
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** @throws WrennError `disk_failed` when the kernel has given the disk up */
async function assertSound(name: string): Promise<void> {
  if (await isInvalid(name)) throw new WrennError("disk_failed");
}

/** With the files of sealed layers, in their order. */
async function withSealed(files: readonly string[], work: (layers: Changes[]) => Promise<void>): Promise<void> {
  const opened: Changes[] = [];
  const openNext = async (): Promise<void> => {
    const file = files[opened.length];
    if (file === undefined) return work(opened);
    await withRegularFile(file, async (handle) => {
      if (!(await isSealed(handle))) throw damaged(file, "can be changed");
      if ((await readState(handle)) !== "valid") throw damaged(file, notChanges);
      opened.push({ file, handle });
      await openNext();
    });
  };
  await openNext();
}

async function loopsOf(devices: readonly string[]): Promise<LoopDevice[]> {
  return (await Promise.all(devices.map(loopDevice))).filter((loop) => loop !== null);
}
