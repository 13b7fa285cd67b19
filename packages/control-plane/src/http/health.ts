/** `/health` and its kin: whether this server lives, and whether it can do its work. They need no key and tell nothing else. */
import { healthSchema, livenessSchema } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { version } from "../services/health.ts";
import type { HealthCheck } from "../services/health.ts";

/** Answered also while the server starts and stops, when all else waits or is refused. */
export function isHealthProbe(url: string): boolean {
  return /^\/health\/(?:live|ready)(?:\?|$)/.test(url);
}

export function healthRoute(healthCheck: HealthCheck): FastifyPluginAsyncZod {
  return async (app) => {
    const tags = ["Server"];
    const response = { 200: healthSchema, 503: healthSchema };

    app.get(
      "/health",
      {
        schema: {
          operationId: "getHealth",
          tags,
          summary: "Ask whether the server can do its work",
          description: "Its database answers, and a host agent does.",
          response,
        },
      },
      async (_request, reply) => {
        const health = await healthCheck.check();
        return reply.code(health.status === "ok" ? 200 : 503).send(health);
      },
    );

    app.get(
      "/health/ready",
      {
        schema: {
          operationId: "getReadiness",
          tags,
          summary: "Ask whether the server takes requests",
          description: "As health, and not while it starts or stops. For load balancers.",
          response,
        },
      },
      async (_request, reply) => {
        const health = await healthCheck.check();
        const status = healthCheck.phase === "serving" ? health.status : healthCheck.phase;
        return reply.code(status === "ok" ? 200 : 503).send({ ...health, status });
      },
    );

    app.get(
      "/health/live",
      {
        schema: {
          operationId: "getLiveness",
          tags,
          summary: "Ask whether the server lives",
          description: "Whatever else is wrong. A server that does not answer is to be started again.",
          response: { 200: livenessSchema },
        },
      },
      async () => ({ status: "ok" as const, version }),
    );
  };
}
