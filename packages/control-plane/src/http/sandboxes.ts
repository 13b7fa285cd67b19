/** `/v1/sandboxes`: create, list, get, destroy. */
import {
  createdSandboxSchema,
  createSandboxSchema,
  formatId,
  listSandboxesQuerySchema,
  listSandboxesSchema,
  parseId,
  sandboxSchema,
} from "@wrenn/contract";
import type { Sandbox } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import { requireKey } from "./authenticate.ts";

const byId = z.object({ id: z.string() });

export function sandboxRoutes({
  sandboxes,
  tokens,
  apiKeys,
}: {
  sandboxes: Sandboxes;
  tokens: AccessTokens;
  apiKeys: ApiKeys;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/sandboxes",
      { schema: { body: createSandboxSchema, response: { 201: createdSandboxSchema } } },
      async (request, reply) => {
        const row = await sandboxes.create(request.teamId, request.body);
        request.log = request.log.child({ sandboxId: row.id });
        return reply.code(201).send({ ...present(row), access_token: tokens.of(row.id) });
      },
    );

    app.get(
      "/v1/sandboxes",
      { schema: { querystring: listSandboxesQuerySchema, response: { 200: listSandboxesSchema } } },
      async (request) => {
        const { cursor, ...ask } = request.query;
        const before = cursor === undefined ? {} : { before: parseId("sandbox", cursor) };
        const { rows, more } = await sandboxes.list(request.teamId, { ...ask, ...before });
        const last = rows.at(-1);
        return {
          sandboxes: rows.map((row) => present(row)),
          next_cursor: more && last !== undefined ? formatId("sandbox", last.id) : null,
        };
      },
    );

    app.get("/v1/sandboxes/:id", { schema: { params: byId, response: { 200: sandboxSchema } } }, async (request) =>
      present(await sandboxes.get(request.teamId, parseId("sandbox", request.params.id))),
    );

    app.delete("/v1/sandboxes/:id", { schema: { params: byId } }, async (request, reply) => {
      await sandboxes.destroy(request.teamId, parseId("sandbox", request.params.id));
      return reply.code(204).send();
    });
  };
}

function present(row: NamedSandboxRow): Sandbox {
  return {
    id: formatId("sandbox", row.id),
    team_id: formatId("team", row.team_id),
    template: row.template,
    status: row.status,
    status_reason:
      row.status_reason_code === null
        ? null
        : { code: row.status_reason_code, message: row.status_reason_message ?? "" },
    vcpus: row.vcpus,
    memory_mib: row.memory_mib,
    disk_mib: row.disk_mib,
    metadata: row.metadata,
    timeout_seconds: null,
    on_timeout: "destroy",
    expires_at: null,
    host_id: row.host_id === null ? null : formatId("host", row.host_id),
    engine: row.engine,
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
  };
}
