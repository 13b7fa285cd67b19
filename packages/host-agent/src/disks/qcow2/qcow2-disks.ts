/** Disks as qcow2 files, each laid over another by its header. QEMU opens the whole chain itself, and nothing else of the host is needed. */
import { type FileHandle, open } from "node:fs/promises";
import { type DiskFormat, deadlines, type LayerId, type SandboxId, WrennError } from "@wrenn/contract";
import { fileIdentity, type Layout, makeDirectory, openFileIdentities, type ProcessIdentity, run } from "@wrenn/system";
import { passable } from "../../directories.ts";
import type { VirtualMachine, VmDisk } from "../../engines/engine.ts";
import { diskToolUid, enginesGid } from "../../engines/users.ts";
import type { DiskChain, Disks, FlattenOptions, SandboxDisk } from "../disks.ts";
import { damaged, isSealed, linkAsLayer, makeLast, removeOverlay, seal, withRegularFile } from "../overlay-files.ts";
import { type Backing, backingOf, emptyOverlay, headerClusterBytes } from "./header.ts";

const mebibyte = 1_048_576;

export class Qcow2Disks implements Disks {
  readonly format: DiskFormat = "qcow2";
  readonly openedAs: VmDisk["format"] = "qcow2";
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  async createOverlay({ file, below, sizeMib, uid }: SandboxDisk): Promise<void> {
    await writeEmpty(file, this.#backing(below), sizeMib, uid);
  }

  async attach({ file, uid }: SandboxDisk): Promise<VmDisk> {
    await withRegularFile(file, (handle) => handle.chown(uid, uid));
    return { path: file, format: "qcow2" };
  }

  /** There is nothing but files. */
  async detach(): Promise<void> {}

  async keepAsLayer({ file }: Pick<SandboxDisk, "file">, layer: LayerId): Promise<void> {
    await linkAsLayer(file, this.#file(layer));
  }

  /**
   * An engine that its guest has taken over could have written another file's name in the header than that of what the layer was laid over,
   * and who opens the layer would read that file: so the name is compared.
   */
  async sealTop({ layers, rootfs }: DiskChain): Promise<void> {
    const [top, ...below] = layers;
    if (top === undefined) return;
    const file = this.#file(top);
    const backing = this.#backing({ layers: below, rootfs });
    await withRegularFile(file, async (handle) => {
      await seal(handle);
      const named = await readBacking(handle);
      if (named?.path === backing.path && named.format === backing.format) return;
      throw damaged(file, `does not name ${backing.path} as the disk below it`);
    });
  }

  async switchOverlay(vm: Pick<VirtualMachine, "switchDisk">, { file }: SandboxDisk): Promise<void> {
    if (vm.switchDisk === undefined) {
      throw new WrennError("internal", { message: "The engine does not know disks of the format qcow2." });
    }
    await vm.switchDisk(file);
  }

  async finishSwitch({ process }: { readonly process: ProcessIdentity }, next: string): Promise<boolean> {
    const there = await fileIdentity(next);
    return there !== null && (await openFileIdentities(process.pid)).has(there);
  }

  async flatten({ chain, sizeMib, target }: FlattenOptions, signal: AbortSignal): Promise<void> {
    const { rootfs } = chain;
    await this.#assertChain(chain);
    const file = this.#file(target);
    await makeDirectory(this.#layout.layer(target).directory, passable);
    await removeOverlay(file);
    await writeEmpty(file, this.#backing(chain), sizeMib, diskToolUid);
    // Only what differs from the root filesystem is written. (`convert -B` would leave out what the layers between hold.)
    const rebase = ["rebase", "-q", "-f", "qcow2", "-F", "raw", "-b", rootfs, file];
    const user = ["--reuid", String(diskToolUid), "--regid", String(enginesGid), "--clear-groups"];
    const without = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"];
    await run("setpriv", [...user, ...without, "qemu-img", ...rebase], { timeoutMs: deadlines.memoryFold, signal });
    await this.sealTop({ layers: [target], rootfs });
    await makeLast(file);
  }

  /** Engines that live have their files, and there is nothing else. */
  async clear(_attached: readonly SandboxId[]): Promise<void> {}

  /** Follows a chain from its top to the root filesystem, sealed files all. */
  async #assertChain({ layers, rootfs }: DiskChain): Promise<void> {
    for (const [index, layer] of layers.entries()) {
      const file = this.#file(layer);
      const backing = this.#backing({ layers: layers.slice(index + 1), rootfs });
      const named = await withRegularFile(file, async (handle) => {
        if (!(await isSealed(handle))) throw damaged(file, "can be changed by its engine's user");
        return readBacking(handle);
      });
      if (named?.path !== backing.path) throw damaged(file, `does not name ${backing.path} as the disk below it`);
    }
  }

  #backing({ layers, rootfs }: DiskChain): Backing {
    const [top] = layers;
    return top === undefined ? { path: rootfs, format: "raw" } : { path: this.#file(top), format: "qcow2" };
  }

  #file(layer: LayerId): string {
    return this.#layout.layer(layer).disk(this.format);
  }
}

async function writeEmpty(file: string, backing: Backing, sizeMib: number, uid: number): Promise<void> {
  const { pieces, fileBytes } = emptyOverlay(backing, sizeMib * mebibyte);
  // Exclusively: the engine's user could have put a link in its place.
  const handle = await open(file, "wx", 0o600);
  try {
    for (const { offset, bytes } of pieces) await handle.write(bytes, 0, bytes.length, offset);
    await handle.truncate(fileBytes);
    await handle.chown(uid, uid);
  } finally {
    await handle.close();
  }
}

async function readBacking(handle: FileHandle): Promise<Backing | null> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(headerClusterBytes), 0, headerClusterBytes, 0);
  return backingOf(buffer.subarray(0, bytesRead));
}
