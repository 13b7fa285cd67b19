/**
 * Resolves the snapshots of a host on which nobody works any more: those that were being created are published when the host has them,
 * and given up when it has not; those that were being deleted are deleted. What the host has and the database knows to be gone is removed.
 */
import { hostAgentProto, parseUuid } from "@wrenn/contract";
import type { Logger } from "pino";
import type { HostClient } from "../hosts/host-client.ts";
import type { HeldBack } from "../services/held-back.ts";
import type { Snapshots } from "../services/snapshots.ts";
import type { Store } from "../store/database.ts";
import type { HostRow, TemplateRow } from "../store/schema.ts";
import { knownSnapshots, staleSnapshots } from "../store/snapshots.ts";
import type { Sightings } from "./sightings.ts";

export interface SnapshotReconcilerOptions {
  readonly store: Store;
  readonly snapshots: Snapshots;
  readonly heldBack: HeldBack;
  readonly trustDatabase: boolean;
  readonly log: Logger;
}

export interface HostLook {
  readonly host: HostRow;
  readonly client: HostClient;
  /** The host's sandboxes, as it listed them before. */
  readonly held: readonly hostAgentProto.Sandbox[];
  readonly sightings: Sightings;
  readonly signal: AbortSignal;
}

export class SnapshotReconciler {
  readonly #options: SnapshotReconcilerOptions;

  constructor(options: SnapshotReconcilerOptions) {
    this.#options = options;
  }

  async reconcile(look: HostLook): Promise<void> {
    const stale = await staleSnapshots(this.#options.store, look.host.id);
    const listed = await look.client.listSnapshots();
    const byId = new Map(listed.map((snapshot) => [snapshot.templateId, snapshot]));
    for (const row of stale) {
      if (look.signal.aborted) return;
      try {
        await this.#resolve(row, byId.get(row.id), look);
      } catch (error) {
        this.#options.log.error({ templateId: row.id, was: row.status, err: error }, "could not resolve a snapshot");
      }
    }
    await this.#removeOrphans(listed, look);
  }

  async #resolve(row: TemplateRow, held: hostAgentProto.Snapshot | undefined, look: HostLook): Promise<void> {
    const { snapshots, log } = this.#options;
    if (row.status === "deleting") {
      await snapshots.removeFiles(row);
      log.info({ templateId: row.id }, "completed the deletion of a snapshot");
      return;
    }
    if (held !== undefined) {
      await snapshots.publish(row, held);
      log.info({ templateId: row.id }, "completed a snapshot that was cut short");
      return;
    }
    // The host may be at it still, for somebody who no longer listens.
    const source = look.held.find(({ sandboxId }) => sandboxId === row.source_sandbox_id);
    if (source?.state === hostAgentProto.SandboxState.SNAPSHOTTING) return;
    if (!look.sightings.confirm(`unmade ${row.id}`)) return;
    await snapshots.abandon(row.id);
    log.warn({ templateId: row.id }, "gave up a snapshot that was cut short");
  }

  /** As with sandboxes: rows stay, so what has none is another database's. */
  async #removeOrphans(listed: readonly hostAgentProto.Snapshot[], look: HostLook): Promise<void> {
    const { store, heldBack, trustDatabase, log } = this.#options;
    const { host, client, sightings, signal } = look;
    const ids = listed.map(({ templateId }) => parseUuid("template", templateId));
    const known = await knownSnapshots(store, ids);
    const unknown = trustDatabase ? [] : ids.filter((id) => !known.has(id));
    heldBack.note("unknown_snapshots", host.id, unknown);
    for (const { templateId, templateTeamId } of listed) {
      const id = parseUuid("template", templateId);
      const isWanted = known.get(id)?.isKept === true || unknown.includes(id);
      if (signal.aborted || isWanted || !sightings.confirm(`orphaned snapshot ${id}`)) continue;
      try {
        await client.ensureSnapshotDeleted(parseUuid("team", templateTeamId), id);
        log.warn({ templateId: id, hostId: host.id }, "removed a snapshot that should not exist");
      } catch (error) {
        log.error({ templateId: id, hostId: host.id, err: error }, "could not remove a snapshot that should not exist");
      }
    }
  }
}
