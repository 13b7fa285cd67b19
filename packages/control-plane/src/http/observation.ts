/** `/v1/sandboxes/{id}/logs` and `/metrics`: what can be seen of a sandbox from outside it. */
import { consoleQuerySchema, consoleSchema, metricsSchema, parseId } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Observation } from "../services/observation.ts";
import { requireKey } from "./authenticate.ts";

const byId = z.object({ id: z.string() });

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
      { schema: { params: byId, querystring: consoleQuerySchema, response: { 200: consoleSchema } } },
      async ({ teamId, params, query }) => observation.readConsole(teamId, parseId("sandbox", params.id), query.offset),
    );

    app.get(
      "/v1/sandboxes/:id/metrics",
      { schema: { params: byId, response: { 200: metricsSchema } } },
      async ({ teamId, params }) => observation.measure(teamId, parseId("sandbox", params.id)),
    );
  };
}
