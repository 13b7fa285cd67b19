/** `/health`: 200 when this server can do its work, 503 when it cannot. Needs no key and tells nothing else. */
import { healthSchema } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { HealthCheck } from "../services/health.ts";

export function healthRoute(healthCheck: HealthCheck): FastifyPluginAsyncZod {
  return async (app) => {
    app.get("/health", { schema: { response: { 200: healthSchema, 503: healthSchema } } }, async (_request, reply) => {
      const health = await healthCheck.check();
      return reply.code(health.status === "ok" ? 200 : 503).send(health);
    });
  };
}
