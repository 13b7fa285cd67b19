/** Named snapshots on this host: the present state of a sandbox, kept under a template's id. */
import { type SandboxId, type TeamId, type TemplateId, WrennError } from "@wrenn/contract";
import type { GenerationManifest } from "../memory/manifest.ts";
import { asDiskError } from "../memory/sizes.ts";
import type { SandboxContext } from "./context.ts";
import type { Sandboxes } from "./sandboxes.ts";
import {
  dropSnapshot,
  findSnapshot,
  keepSnapshot,
  type KeptSnapshot,
  listSnapshots,
  removeSnapshot,
} from "../memory/snapshot-templates.ts";

export interface SnapshotListing {
  readonly kept: KeptSnapshot;
  readonly manifest: GenerationManifest;
}

export class Snapshots {
  readonly #context: SandboxContext;
  readonly #sandboxes: Sandboxes;

  constructor(context: SandboxContext, sandboxes: Sandboxes) {
    this.#context = context;
    this.#sandboxes = sandboxes;
  }

  /**
   * Keeps the present state of a running or paused sandbox. A snapshot that is there already under that id is the answer.
   * @throws WrennError `sandbox_not_found`, `sandbox_died`, `sandbox_busy`, `host_out_of_disk`, or of the step that failed
   */
  async create(sandboxId: SandboxId, teamId: TeamId, templateId: TemplateId): Promise<SnapshotListing> {
    const { layout, folds, generations, runStep } = this.#context;
    const existing = await findSnapshot(layout, teamId, templateId);
    if (existing !== null) return { kept: existing, manifest: await generations.read(existing.generation) };
    const frozen = await this.#sandboxes.freeze(sandboxId, "snapshot");
    try {
      const { manifest } = frozen;
      const kept = { generation: manifest.id, sizeBytes: manifest.newBytes, teamId, templateId };
      await runStep("snapshot", "keep the snapshot", () => keepSnapshot(layout, kept));
      // Started from often: a flat image is mapped, and its clean pages are shared.
      folds.add(manifest.id, { flat: true });
      return { kept, manifest };
    } catch (error) {
      await this.#giveUp(teamId, templateId);
      throw asDiskError(error);
    } finally {
      frozen.letGo();
    }
  }

  /** It may be there although writing it failed at its last sync, and nobody would ever delete it. */
  async #giveUp(teamId: TeamId, templateId: TemplateId): Promise<void> {
    const { layout, log } = this.#context;
    try {
      await removeSnapshot(layout, teamId, templateId);
    } catch (error) {
      log.warn({ templateId, err: error }, "could not remove what a failed snapshot has left");
    }
  }

  /** @throws WrennError `snapshot_not_found` */
  async delete(teamId: TeamId, templateId: TemplateId): Promise<void> {
    const { layout, runStep, suspectGarbage } = this.#context;
    try {
      await runStep("delete", "drop the snapshot", () => dropSnapshot(layout, teamId, templateId));
    } catch (error) {
      throw asDiskError(error);
    }
    suspectGarbage();
  }

  /** Goes on with what an earlier host agent may not have come to. */
  async foldAll(): Promise<void> {
    const { layout, folds, log } = this.#context;
    try {
      for (const { generation } of await listSnapshots(layout)) folds.add(generation, { flat: true });
    } catch (error) {
      log.error({ err: error }, "snapshots are not folded: not all of them can be read");
    }
  }

  /** Those whose state can be read. */
  async list(): Promise<SnapshotListing[]> {
    const { layout, generations, log } = this.#context;
    const listings: SnapshotListing[] = [];
    for (const kept of await listSnapshots(layout)) {
      try {
        listings.push({ kept, manifest: await generations.read(kept.generation) });
      } catch (error) {
        if (!(error instanceof WrennError)) throw error;
        log.error({ templateId: kept.templateId, err: error }, "a snapshot cannot be read");
      }
    }
    return listings;
  }
}
