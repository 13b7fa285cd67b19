/** `/v1/sandboxes/{id}/exec`: a command from its start to its end in one request. */
import { execResultSchema, execSchema, parseId, sandboxParamsSchema } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Commands } from "../services/commands.ts";
import { requireKey } from "./authenticate.ts";
import { commandErrors, reachErrors } from "./route-errors.ts";
import { whenClientLeaves } from "./client-leaves.ts";

export function execRoute({ apiKeys, commands }: { apiKeys: ApiKeys; commands: Commands }): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/sandboxes/:id/exec",
      {
        schema: {
          operationId: "exec",
          tags: ["Commands"],
          summary: "Run a command to its end",
          description:
            "Answers with its output once it has ended. It is killed when its time has passed, and when the client leaves before. " +
            "For what takes longer or is to be followed meanwhile, open a stream or start a process.",
          params: sandboxParamsSchema,
          body: execSchema,
          response: { 200: execResultSchema },
          errors: [...reachErrors, ...commandErrors],
        },
      },
      async (request, reply) =>
        commands.exec(request.teamId, parseId("sandbox", request.params.id), request.body, whenClientLeaves(reply)),
    );
  };
}
