/** Named snapshots: templates that hold a sandbox's frozen memory and disk, on the host where it was. */
import { randomBytes } from "node:crypto";
import {
  asWrennError,
  assertName,
  can,
  deadlines,
  newId,
  parseUuid,
  platformTeamId,
  WrennError,
} from "@wrenn/contract";
import type { CreateSnapshot, hostAgentProto, SandboxId, TeamId, TemplateId } from "@wrenn/contract";
import type { HostClient } from "../hosts/host-client.ts";
import { machineOf } from "../hosts/machine.ts";
import { findHost } from "../store/hosts.ts";
import { beginCopying } from "../store/reservations.ts";
import type { SandboxRow, TemplateRow } from "../store/schema.ts";
import {
  abandonSnapshot,
  beginDeletion,
  expireSnapshot,
  findSnapshot,
  finishDeletion,
  insertSnapshot,
  listSnapshots,
  publishSnapshot,
} from "../store/snapshots.ts";
import { findNameHolder } from "../store/templates.ts";
import { isOutcomeUnknown, maxAttempts, refusal } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";

type CreateAsk = Omit<CreateSnapshot, "sandbox_id"> & { readonly sandboxId: SandboxId };

export class Snapshots {
  readonly #with: SandboxServices;
  readonly #operations: Operations;

  constructor(services: SandboxServices, operations: Operations) {
    this.#with = services;
    this.#operations = operations;
  }

  /**
   * Answers once the snapshot is durable and has its name. One that it replaces keeps the name until then.
   * @throws WrennError `invalid_name`, `snapshot_name_taken`, `forbidden` for the name of a platform's template that is to be replaced,
   * `sandbox_not_found`, `sandbox_busy`, `sandbox_died`, `sandbox_state_conflict`, or why the host could not
   */
  async create(teamId: TeamId, ask: CreateAsk): Promise<TemplateRow> {
    const { store } = this.#with;
    const name =
      ask.name === undefined ? `snapshot-${randomBytes(4).toString("hex")}` : assertName(ask.name, "snapshot");
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const source = await this.#operations.get(teamId, ask.sandboxId);
      if (!can.copy(source.status)) throw refusal(source);
      const { id: hostId, client } = await this.#operations.hostOf(source);
      const deadlineMs = deadlines.snapshotSandbox;
      const begun = await store
        .transaction()
        .execute(async (transaction) => {
          const holder = await findNameHolder(transaction, teamId, name);
          if (holder?.team_id === platformTeamId && ask.overwrite) throw ofPlatform();
          const id = newId("template");
          const snapshot = await insertSnapshot(transaction, { id, teamId, name, source, hostId, deadlineMs });
          // Asked again: whoever was creating one of this name may have completed it meanwhile.
          const isTaken = await findNameHolder(transaction, teamId, name);
          if (isTaken !== null && !(ask.overwrite && isTaken.type === "snapshot")) {
            throw new WrennError("snapshot_name_taken");
          }
          const marked = await beginCopying(transaction, source, deadlineMs);
          if (marked !== null) return { snapshot, source: marked };
          // Somebody has changed the sandbox: nothing of this is to stay.
          throw new ChangedMeanwhile();
        })
        .catch((error: unknown) => {
          if (error instanceof ChangedMeanwhile) return null;
          throw error;
        });
      if (begun !== null) return this.#take(begun.snapshot, begun.source, client);
    }
    throw new WrennError("sandbox_busy");
  }

  /** @throws WrennError `invalid_name`, `snapshot_not_found`, also for another team's */
  async get(teamId: TeamId, name: string): Promise<TemplateRow> {
    const row = await findSnapshot(this.#with.store, teamId, assertName(name, "snapshot"));
    if (row === null) throw new WrennError("snapshot_not_found");
    return row;
  }

  /** A page, newest first, and whether more follow. */
  async list(
    teamId: TeamId,
    { limit, before }: { limit: number; before?: TemplateId },
  ): Promise<{ rows: TemplateRow[]; more: boolean }> {
    const rows = await listSnapshots(this.#with.store, {
      teamId,
      limit: limit + 1,
      ...(before === undefined ? {} : { before }),
    });
    return { rows: rows.slice(0, limit), more: rows.length > limit };
  }

  /**
   * Answers once its host has removed it. From then on no sandbox starts from it; those that did go on. When the host fails, the
   * snapshot stays in the list and is removed later.
   * @throws WrennError `invalid_name`, `snapshot_not_found`, `forbidden` for a platform's template, `host_unavailable`, or why the host
   * could not
   */
  async delete(teamId: TeamId, name: string): Promise<void> {
    const { store, log } = this.#with;
    const holder = await findNameHolder(store, teamId, assertName(name, "snapshot"));
    if (holder?.team_id === platformTeamId) throw ofPlatform();
    const row = holder?.type === "snapshot" ? await beginDeletion(store, holder.id) : null;
    if (row === null) throw new WrennError("snapshot_not_found");
    await this.removeFiles(row);
    log.info({ templateId: row.id, teamId }, "snapshot deleted");
  }

  /** Of a row that is `deleting`. Safe to repeat, also at the same time. */
  async removeFiles(row: TemplateRow): Promise<void> {
    const { store, clients } = this.#with;
    try {
      const host = row.host_id === null ? null : await findHost(store, row.host_id);
      if (host !== null) await clients.get(host.address).ensureSnapshotDeleted(row.team_id, row.id);
      await finishDeletion(store, row.id);
    } catch (error) {
      await this.#leaveToReconciler(row);
      throw error;
    }
  }

  /** The host has it: it gets its name, and what had the name before goes. Null when it is not being created any more. */
  async publish(row: TemplateRow, snapshot: hostAgentProto.Snapshot): Promise<TemplateRow | null> {
    const published = await publishSnapshot(this.#with.store, row, {
      generationId: parseUuid("generation", snapshot.generationId),
      sizeBytes: Number(snapshot.sizeBytes),
      machine: machineOf(snapshot),
    });
    for (const replaced of published?.replaced ?? []) await this.#removeLater(replaced);
    return published?.snapshot ?? null;
  }

  /** Nothing has come of it. */
  async abandon(id: TemplateId): Promise<void> {
    const row = await abandonSnapshot(this.#with.store, id);
    if (row !== null) await this.#removeLater(row);
  }

  async #take(row: TemplateRow, source: SandboxRow, client: HostClient): Promise<TemplateRow> {
    const isMarked = source.status === "snapshotting";
    const template = { teamId: row.team_id, id: row.id };
    let taken: hostAgentProto.Snapshot | undefined;
    try {
      await this.#operations.carryOut(source, {
        done: "kept as a snapshot",
        work: async () => {
          taken = await client.createSnapshot(source.id, template);
        },
        success: isMarked ? () => ({ to: "running" }) : null,
        failure: isMarked ? (reason) => ({ to: "running", reason }) : null,
      });
    } catch (failure) {
      const error = asWrennError(failure);
      // What has become of the sandbox meanwhile is no matter of the snapshot that was taken of it.
      if (taken === undefined) {
        if (isOutcomeUnknown(error)) await this.#leaveToReconciler(row);
        else await this.abandon(row.id);
        throw error;
      }
    }
    const published = taken === undefined ? null : await this.publish(row, taken);
    if (published === null) throw new WrennError("internal", { message: "The snapshot was given up meanwhile." });
    return published;
  }

  async #removeLater(row: TemplateRow): Promise<void> {
    try {
      await this.removeFiles(row);
    } catch (error) {
      this.#with.log.warn(
        { templateId: row.id, err: error },
        "could not remove a snapshot's files; the reconciler will",
      );
    }
  }

  async #leaveToReconciler({ id }: TemplateRow): Promise<void> {
    await expireSnapshot(this.#with.store, id).catch((error: unknown) => {
      this.#with.log.warn({ templateId: id, err: error }, "could not have a snapshot looked into at once");
    });
    this.#with.onUnresolved();
  }
}

class ChangedMeanwhile extends Error {}

function ofPlatform(): WrennError {
  return new WrennError("forbidden", { message: "A template of that name belongs to the platform." });
}
