/** `/v1/sandboxes/{id}/logs` and `/metrics`: what can be seen of a sandbox from outside it. */
import { consoleQuerySchema, consoleSchema, metricsSchema, parseId, sandboxParamsSchema } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Observation } from "../services/observation.ts";
import { requireKey } from "./authenticate.ts";
import { reachErrors } from "./route-errors.ts";

const tags = ["Observing"];

export function observationRoutes({
  observation,
  apiKeys,
}: {
  observation: Observation;
  apiKeys: ApiKeys;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.get(
      "/v1/sandboxes/:id/logs",
      {
        schema: {
          operationId: "readConsole",
          tags,
          summary: "Read the console",
          description: "What the guest's kernel and its first process printed. To go on, ask again with `next_offset`.",
          params: sandboxParamsSchema,
          querystring: consoleQuerySchema,
          response: { 200: consoleSchema },
          errors: ["host_unavailable", "console_gone"],
        },
      },
      async ({ teamId, params, query }) => observation.readConsole(teamId, parseId("sandbox", params.id), query.offset),
    );

    app.get(
      "/v1/sandboxes/:id/metrics",
      {
        schema: {
          operationId: "getMetrics",
          tags,
          summary: "Measure a sandbox",
          description: "What it uses right now, as its guest measures it.",
          params: sandboxParamsSchema,
          response: { 200: metricsSchema },
          errors: reachErrors,
        },
      },
      async ({ teamId, params }) => observation.measure(teamId, parseId("sandbox", params.id)),
    );
  };
}
