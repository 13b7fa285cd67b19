/** `/v1/sandboxes/{id}/exec`: a command from its start to its end in one request. */
import { execResultSchema, execSchema, parseId } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Commands } from "../services/commands.ts";
import { requireKey } from "./authenticate.ts";
import { whenClientLeaves } from "./client-leaves.ts";

export function execRoute({ apiKeys, commands }: { apiKeys: ApiKeys; commands: Commands }): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/sandboxes/:id/exec",
      { schema: { params: z.object({ id: z.string() }), body: execSchema, response: { 200: execResultSchema } } },
      async (request, reply) =>
        commands.exec(request.teamId, parseId("sandbox", request.params.id), request.body, whenClientLeaves(reply)),
    );
  };
}
