/** Named snapshots on this host: the present state of a sandbox, kept under a template's id. */
import { type SandboxId, type TeamId, type TemplateId, WrennError } from "@wrenn/contract";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { SandboxContext } from "./context.ts";
import type { Sandboxes } from "./sandboxes.ts";
import {
  dropSnapshot,
  findSnapshot,
  keepSnapshot,
  type KeptSnapshot,
  listSnapshots,
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
    const { layout, folds, generations } = this.#context;
    const existing = await findSnapshot(layout, teamId, templateId);
    if (existing !== null) return { kept: existing, manifest: await generations.read(existing.generation) };
    const frozen = await this.#sandboxes.freeze(sandboxId, "snapshot");
    try {
      const { manifest } = frozen;
      const kept = { generation: manifest.id, sizeBytes: manifest.newBytes, teamId, templateId };
      await keepSnapshot(layout, kept);
      // Started from often: a flat image is mapped, and its clean pages are shared.
      folds.add(manifest.id, { flat: true });
      return { kept, manifest };
    } finally {
      frozen.letGo();
    }
  }

  /** @throws WrennError `snapshot_not_found` */
  async delete(teamId: TeamId, templateId: TemplateId): Promise<void> {
    await dropSnapshot(this.#context.layout, teamId, templateId);
    this.#context.suspectGarbage();
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
