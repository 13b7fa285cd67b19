/** `/v1/snapshots`: take, list, get, delete. */
import {
  createSnapshotSchema,
  formatId,
  listSnapshotsQuerySchema,
  listSnapshotsSchema,
  parseId,
  snapshotParamsSchema,
  snapshotSchema,
  WrennError,
} from "@wrenn/contract";
import type { Snapshot } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Snapshots } from "../services/snapshots.ts";
import type { TemplateRow } from "../store/schema.ts";
import { requireKey } from "./authenticate.ts";
import { copyErrors, hostErrors } from "./route-errors.ts";

const tags = ["Snapshots"];
const params = snapshotParamsSchema;

export function snapshotRoutes({
  snapshots,
  apiKeys,
}: {
  snapshots: Snapshots;
  apiKeys: ApiKeys;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/snapshots",
      {
        schema: {
          operationId: "createSnapshot",
          tags,
          summary: "Take a snapshot of a sandbox",
          description:
            "Its memory, processes and disk, as they are at one moment, under a name that `template` of a create can be. Answers once it " +
            "is safe on the host's disk. The sandbox runs on, or stays paused.",
          body: createSnapshotSchema,
          response: { 201: snapshotSchema },
          errors: [
            "invalid_id",
            "invalid_name",
            "snapshot_name_taken",
            "forbidden",
            "sandbox_not_found",
            ...copyErrors,
          ],
        },
      },
      async (request, reply) => {
        const { sandbox_id, name, overwrite } = request.body;
        const sandboxId = parseId("sandbox", sandbox_id);
        const row = await snapshots.create(request.teamId, {
          sandboxId,
          overwrite,
          ...(name === undefined ? {} : { name }),
        });
        return reply.code(201).send(present(row));
      },
    );

    app.get(
      "/v1/snapshots",
      {
        schema: {
          operationId: "listSnapshots",
          tags,
          summary: "List snapshots",
          description: "Those of your team, newest first, in pages.",
          querystring: listSnapshotsQuerySchema,
          response: { 200: listSnapshotsSchema },
          errors: ["invalid_id"],
        },
      },
      async (request) => {
        const { cursor, limit } = request.query;
        const before = cursor === undefined ? {} : { before: parseId("template", cursor) };
        const { rows, more } = await snapshots.list(request.teamId, { limit, ...before });
        const last = rows.at(-1);
        return {
          snapshots: rows.map((row) => present(row)),
          next_cursor: more && last !== undefined ? formatId("template", last.id) : null,
        };
      },
    );

    app.get(
      "/v1/snapshots/:name",
      {
        schema: {
          operationId: "getSnapshot",
          tags,
          summary: "Get a snapshot",
          description: "By its name. Those of the platform and of other teams are not there.",
          params,
          response: { 200: snapshotSchema },
          errors: ["invalid_name", "snapshot_not_found"],
        },
      },
      async (request) => present(await snapshots.get(request.teamId, request.params.name)),
    );

    app.delete(
      "/v1/snapshots/:name",
      {
        schema: {
          operationId: "deleteSnapshot",
          tags,
          summary: "Delete a snapshot",
          description:
            "Answers once its host has removed it. Sandboxes that were started from it go on. When the host cannot, it stays in the list, " +
            "starts no sandboxes any more, and is removed later.",
          params,
          response: { 204: z.undefined().describe("It is deleted.") },
          errors: ["invalid_name", "snapshot_not_found", "forbidden", "sandbox_busy", ...hostErrors],
        },
      },
      async (request, reply) => {
        await snapshots.delete(request.teamId, request.params.name);
        return reply.code(204).send();
      },
    );
  };
}

function present(row: TemplateRow): Snapshot {
  const { vcpus, memory_mib } = row;
  if (vcpus === null || memory_mib === null)
    throw new WrennError("internal", { message: "The snapshot has no sizes." });
  return {
    id: formatId("template", row.id),
    team_id: formatId("team", row.team_id),
    name: row.name,
    sandbox_id: row.source_sandbox_id === null ? null : formatId("sandbox", row.source_sandbox_id),
    vcpus,
    memory_mib,
    disk_mib: row.disk_mib,
    size_bytes: row.size_bytes,
    host_id: row.host_id === null ? null : formatId("host", row.host_id),
    engine: row.engine,
    engine_version: row.engine_version,
    cpu: row.cpu,
    disk_format: row.disk_format,
    created_at: row.created_at.toISOString(),
  };
}
