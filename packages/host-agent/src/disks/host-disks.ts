/** The disks of this host: the format that new ones are made in, and those that older ones have. */
import { type DiskFormat, diskFormats, type SandboxId, WrennError } from "@wrenn/contract";
import { type Layout, tryAll } from "@wrenn/system";
import type { Engine } from "../engines/engine.ts";
import type { ChosenDisks } from "./choice.ts";
import type { Disks } from "./disks.ts";
import { DmSnapshotDisks } from "./dm-snapshot/dm-snapshot-disks.ts";
import { Qcow2Disks } from "./qcow2/qcow2-disks.ts";

/** A disk that somebody's engine has attached. */
export interface AttachedDisk {
  readonly sandboxId: SandboxId;
  readonly format: DiskFormat;
}

export class HostDisks {
  readonly #chosen: ChosenDisks;
  readonly #kinds: Readonly<Record<DiskFormat, Disks>>;

  constructor(layout: Layout, chosen: ChosenDisks) {
    this.#chosen = chosen;
    this.#kinds = { qcow2: new Qcow2Disks(layout), "dm-snapshot": new DmSnapshotDisks(layout) };
  }

  /** For new sandboxes. */
  get current(): Disks {
    return this.of(this.#chosen.format);
  }

  /** Why they are of that format, in a sentence. */
  get reason(): string {
    return this.#chosen.reason;
  }

  /** Those of a format, whether or not new ones can be attached here: what is attached is given back in any case. */
  of(format: DiskFormat): Disks {
    return this.#kinds[format];
  }

  /**
   * Called before anything is taken for a disk.
   * @throws WrennError `snapshot_incompatible` for a frozen disk of a format that this host or that engine cannot use, `disk_setup_failed`
   * when it is what new ones are to be
   */
  assertUsable(format: DiskFormat, engine: Pick<Engine, "kind" | "opens">): void {
    const obstacle = this.#obstacle(format, engine);
    if (obstacle === null) return;
    const message = `The disk is of the format ${format}, which ${obstacle}.`;
    const details = { format, engine: engine.kind };
    if (format !== this.#chosen.format) throw new WrennError("snapshot_incompatible", { message, details });
    const suggestion = "Choose another format with WRENN_DISKS, or mend what the message names.";
    throw new WrennError("disk_setup_failed", { message, suggestion, details });
  }

  /** Every format in which that engine can use disks here. */
  usableBy(engine: Pick<Engine, "kind" | "opens">): DiskFormat[] {
    return diskFormats.filter((format) => this.#obstacle(format, engine) === null);
  }

  /** At the start of a host agent: gives back everything that was attached for others than these, whose engines live. */
  async clear(attached: readonly AttachedDisk[]): Promise<void> {
    await tryAll(
      Object.values(this.#kinds).map((disks) => ({
        name: `clear the disks of the format ${disks.format}`,
        run: () => {
          const kept = attached.filter(({ format }) => format === disks.format).map(({ sandboxId }) => sandboxId);
          return disks.clear(kept);
        },
      })),
    );
  }

  /** What keeps the engine from disks of that format here, or null. */
  #obstacle(format: DiskFormat, { kind, opens }: Pick<Engine, "kind" | "opens">): string | null {
    const { dmSnapshot } = this.#chosen;
    if (format === "dm-snapshot" && !dmSnapshot.usable) return `this host cannot use: ${dmSnapshot.reason}`;
    return opens.includes(this.of(format).openedAs) ? null : `the engine ${kind} cannot open`;
  }
}
