/** For tests: disks over a small root filesystem of a known content, written and read as an engine would, and what is left of them. */
import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, open, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type LayerId, newId, type SandboxId } from "@wrenn/contract";
import { type Layout, wrennLayout } from "@wrenn/system";
import { blockDevicesOf } from "../../../testing/block-devices.ts";
import type { DiskChain, SandboxDisk } from "../../disks.ts";
import { DmSnapshotDisks } from "../dm-snapshot-disks.ts";

export const chunk = 4_096;
export const mebibyte = 1_048_576;

/** Whose devices of the host cannot be taken for those of others. */
export const uid = 1_900_000_001;

export class DiskStand {
  readonly layout: Layout;
  readonly disks: DmSnapshotDisks;
  readonly rootfs: string;
  readonly sizeMib: number;
  /** Nothing but the root filesystem. */
  readonly bare: DiskChain;

  private constructor(root: string, rootfs: string, sizeMib: number) {
    this.layout = wrennLayout(root);
    this.disks = new DmSnapshotDisks(this.layout);
    this.rootfs = rootfs;
    this.sizeMib = sizeMib;
    this.bare = { layers: [], rootfs };
  }

  /** @param parent the directory that all of it is made in */
  static async open(
    sizes: { readonly sizeMib: number; readonly rootfsBytes?: number },
    parent = tmpdir(),
  ): Promise<DiskStand> {
    const root = await realpath(await mkdtemp(path.join(parent, "wrenn-dm-")));
    await chmod(root, 0o711);
    const rootfs = path.join(root, "rootfs.ext4");
    const handle = await open(rootfs, "wx", 0o640);
    await handle.write(Buffer.alloc(16 * chunk, 0x11));
    await handle.truncate(sizes.rootfsBytes ?? sizes.sizeMib * mebibyte);
    await handle.close();
    const stand = new DiskStand(root, rootfs, sizes.sizeMib);
    await mkdir(stand.layout.layers, { mode: 0o711 });
    await mkdir(stand.layout.sandboxes, { mode: 0o711 });
    return stand;
  }

  /** The disk of a new sandbox, of which there is nothing yet. */
  async disk(below: DiskChain, id: SandboxId = newId("sandbox")): Promise<SandboxDisk> {
    const files = this.layout.sandbox(id);
    await mkdir(files.directory, { recursive: true });
    return { sandboxId: id, file: files.overlay("dm-snapshot"), below, sizeMib: this.sizeMib, uid };
  }

  /** The same sandbox's disk over a layer that its present one is about to become. */
  next(disk: SandboxDisk, layer: LayerId): SandboxDisk {
    const file = this.layout.sandbox(disk.sandboxId).otherOverlay("dm-snapshot");
    return { ...disk, file, below: { ...disk.below, layers: [layer, ...disk.below.layers] } };
  }

  async attached(below: DiskChain): Promise<SandboxDisk & { readonly device: string }> {
    const disk = await this.disk(below);
    await this.disks.createOverlay(disk);
    return { ...disk, device: (await this.disks.attach(disk)).path };
  }

  /** A sealed layer in which this was written. */
  async layer(below: DiskChain, writes: readonly Write[]): Promise<DiskChain> {
    const disk = await this.attached(below);
    await writeTo(disk.device, writes);
    return this.frozen(disk);
  }

  /** As a pause does: the present overlay becomes a layer, and the rest of the disk goes. */
  async frozen(disk: SandboxDisk): Promise<DiskChain> {
    const layer = newId("layer");
    await this.disks.keepAsLayer(disk, layer);
    await this.disks.detach(disk.sandboxId);
    const chain = { ...disk.below, layers: [layer, ...disk.below.layers] };
    await this.disks.sealTop(chain);
    await rm(disk.file);
    return chain;
  }

  /** All that there is of this stand on the host but files. */
  async devices(): Promise<string[]> {
    return blockDevicesOf(this.layout);
  }

  /** As a host agent that starts and finds no sandboxes. Throws when that leaves something. */
  async remove(): Promise<void> {
    await this.disks.clear([]);
    const left = await this.devices();
    await rm(this.layout.root, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`);
  }
}

export interface Write {
  /** The number of a chunk of the disk. */
  readonly at: number;
  readonly bytes: Buffer;
}

export function noise(at: number, chunks = 1): Write {
  return { at, bytes: randomBytes(chunks * chunk) };
}

/** As an engine does that was asked to make it last. */
export async function writeTo(device: string, writes: readonly Write[]): Promise<void> {
  const handle = await open(device, "r+");
  try {
    for (const { at, bytes } of writes) await handle.write(bytes, 0, bytes.length, at * chunk);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What of this is not there, by the numbers of chunks. */
export async function missingFrom(device: string, writes: readonly Write[]): Promise<number[]> {
  const handle = await open(device, "r");
  try {
    const missing: number[] = [];
    for (const { at, bytes } of writes) {
      const { buffer } = await handle.read(Buffer.alloc(bytes.length), 0, bytes.length, at * chunk);
      if (!buffer.equals(bytes)) missing.push(at);
    }
    return missing;
  } finally {
    await handle.close();
  }
}

/** What a chunk of the root filesystem holds. */
export function original(at: number): Write {
  return { at, bytes: Buffer.alloc(chunk, at < 16 ? 0x11 : 0) };
}
