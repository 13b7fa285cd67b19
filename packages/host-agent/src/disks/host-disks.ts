/** The disks of this host: the format that new ones are made in, and those that older ones have. */
import { type DiskFormat, type SandboxId, WrennError } from "@wrenn/contract";
import { type Layout, tryAll } from "@wrenn/system";
import type { Engine } from "../engines/engine.ts";
import type { Disks } from "./disks.ts";
import { Qcow2Disks } from "./qcow2/qcow2-disks.ts";

/** A disk that somebody's engine has attached. */
export interface AttachedDisk {
  readonly sandboxId: SandboxId;
  readonly format: DiskFormat;
}

export class HostDisks {
  /** For new sandboxes. */
  readonly current: Disks;
  /** Why they are of that format, in a sentence. */
  readonly reason: string;
  readonly #kinds: readonly Disks[];

  private constructor(current: Disks, reason: string, kinds: readonly Disks[]) {
    this.current = current;
    this.reason = reason;
    this.#kinds = kinds;
  }

  static async open(layout: Layout): Promise<HostDisks> {
    const qcow2 = new Qcow2Disks(layout);
    return new HostDisks(qcow2, "Disks are files that QEMU itself lays over one another.", [qcow2]);
  }

  /** @throws WrennError `snapshot_incompatible` for a format that this host does not know */
  of(format: DiskFormat): Disks {
    const found = this.#kinds.find((disks) => disks.format === format);
    if (found !== undefined) return found;
    const message = `Its disk is of the format ${format}, which this host cannot use.`;
    throw new WrennError("snapshot_incompatible", { message, details: { format } });
  }

  /** @throws WrennError `snapshot_incompatible` when a disk of that format cannot be used here, or not by that engine */
  assertUsable(format: DiskFormat, engine: Pick<Engine, "kind" | "opens">): void {
    if (engine.opens.includes(this.of(format).openedAs)) return;
    const message = `Its disk is of the format ${format}, which ${engine.kind} cannot open.`;
    throw new WrennError("snapshot_incompatible", { message, details: { format, engine: engine.kind } });
  }

  /** At the start of a host agent: gives back everything that was attached for others than these, whose engines live. */
  async clear(attached: readonly AttachedDisk[]): Promise<void> {
    await tryAll(
      this.#kinds.map((disks) => ({
        name: `clear the disks of the format ${disks.format}`,
        run: () => {
          const kept = attached.filter(({ format }) => format === disks.format).map(({ sandboxId }) => sandboxId);
          return disks.clear(kept);
        },
      })),
    );
  }
}
