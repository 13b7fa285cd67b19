/** `/v1/sandboxes`: create, list, get, update, ping, destroy. */
import {
  createdSandboxSchema,
  createSandboxHeadersSchema,
  createSandboxSchema,
  formatId,
  listSandboxesQuerySchema,
  listSandboxesSchema,
  parseId,
  sandboxParamsSchema,
  sandboxSchema,
  updateSandboxSchema,
} from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Creations } from "../services/creations.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { requireKey } from "./authenticate.ts";
import { sandboxPresenter } from "./present-sandbox.ts";
import { creationErrors, hostErrors } from "./route-errors.ts";

const tags = ["Sandboxes"];
const params = sandboxParamsSchema;

export function sandboxRoutes({
  sandboxes,
  creations,
  tokens,
  apiKeys,
}: {
  sandboxes: Sandboxes;
  creations: Creations;
  tokens: AccessTokens;
  apiKeys: ApiKeys;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));
    const { show, showWithToken } = sandboxPresenter(sandboxes, tokens);

    app.post(
      "/v1/sandboxes",
      {
        schema: {
          operationId: "createSandbox",
          tags,
          summary: "Create a sandbox",
          description:
            "Answers once it runs, which takes some seconds. A request that may be sent twice, for instance after its answer " +
            "was lost, creates one sandbox if both have the same `Idempotency-Key`.",
          headers: createSandboxHeadersSchema,
          body: createSandboxSchema,
          response: { 201: createdSandboxSchema },
          errors: ["invalid_name", "template_not_found", "idempotency_conflict", "sandbox_busy", ...creationErrors],
        },
      },
      async (request, reply) => {
        const key = request.headers["idempotency-key"];
        const { row, replayed } = await creations.create(request.teamId, request.body, key);
        request.log = request.log.child({ sandboxId: row.id });
        if (replayed) void reply.header("Idempotent-Replayed", "true");
        return reply.code(201).send(showWithToken(row));
      },
    );

    app.get(
      "/v1/sandboxes",
      {
        schema: {
          operationId: "listSandboxes",
          tags,
          summary: "List sandboxes",
          description: "Those of your team, newest first, in pages.",
          querystring: listSandboxesQuerySchema,
          response: { 200: listSandboxesSchema },
          errors: ["invalid_id", "invalid_name"],
        },
      },
      async (request) => {
        const { cursor, ...ask } = request.query;
        const before = cursor === undefined ? {} : { before: parseId("sandbox", cursor) };
        const { rows, more } = await sandboxes.list(request.teamId, { ...ask, ...before });
        const last = rows.at(-1);
        return {
          sandboxes: rows.map((row) => show(row)),
          next_cursor: more && last !== undefined ? formatId("sandbox", last.id) : null,
        };
      },
    );

    app.get(
      "/v1/sandboxes/:id",
      {
        schema: {
          operationId: "getSandbox",
          tags,
          summary: "Get a sandbox",
          description: "Also one that is destroyed, whose status is `stopped`.",
          params,
          response: { 200: sandboxSchema },
        },
      },
      async (request) => show(await sandboxes.get(request.teamId, parseId("sandbox", request.params.id))),
    );

    app.patch(
      "/v1/sandboxes/:id",
      {
        schema: {
          operationId: "updateSandbox",
          tags,
          summary: "Change metadata or timeout",
          description: "A timeout counts from now on.",
          params,
          body: updateSandboxSchema,
          response: { 200: sandboxSchema },
          errors: ["sandbox_state_conflict", "sandbox_busy"],
        },
      },
      async (request) =>
        show(await sandboxes.update(request.teamId, parseId("sandbox", request.params.id), request.body)),
    );

    app.post(
      "/v1/sandboxes/:id/ping",
      {
        schema: {
          operationId: "pingSandbox",
          tags,
          summary: "Keep a sandbox from being idle",
          description: "Its timeout begins anew. Every other use of it does the same.",
          params,
          response: { 204: z.undefined().describe("Its timeout has begun anew.") },
          errors: ["sandbox_state_conflict", "sandbox_paused", "sandbox_busy"],
        },
      },
      async (request, reply) => {
        await sandboxes.ping(request.teamId, parseId("sandbox", request.params.id));
        return reply.code(204).send();
      },
    );

    app.delete(
      "/v1/sandboxes/:id",
      {
        schema: {
          operationId: "destroySandbox",
          tags,
          summary: "Destroy a sandbox",
          description: "Whatever its status. Answers once everything of it is freed; nothing of it can be had again.",
          params,
          response: { 204: z.undefined().describe("It is destroyed.") },
          errors: ["sandbox_busy", ...hostErrors],
        },
      },
      async (request, reply) => {
        await sandboxes.destroy(request.teamId, parseId("sandbox", request.params.id));
        return reply.code(204).send();
      },
    );
  };
}
