/** `/metrics`: what this server counts, for Prometheus. It is for the operator: it tells of all teams. */
import { isIP } from "node:net";
import type { TeamId } from "@wrenn/contract";
import { WrennError } from "@wrenn/contract";
import type { FastifyPluginAsync, FastifyRequest } from "fastify";
import type { Registry } from "prom-client";
import type { ApiKeys } from "../services/api-keys.ts";
import { presentedKey } from "../services/presented-key.ts";

export interface MetricsAccess {
  readonly apiKeys: ApiKeys;
  /** Teams whose keys may read everything. */
  readonly operators: ReadonlySet<TeamId>;
  /** Where the server listens, as configured. */
  readonly listenHost: string;
}

/** Any of these says that somebody else is behind the connection. */
const forwardingHeaders = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"] as const;

export function metricsRoute(registry: Registry, access: MetricsAccess): FastifyPluginAsync {
  return async (app) => {
    const checkAccess = async (request: FastifyRequest): Promise<void> => assertMayRead(request, access);
    app.get(
      "/metrics",
      {
        onRequest: checkAccess,
        schema: {
          operationId: "getServerMetrics",
          tags: ["Server"],
          summary: "Measure the server",
          description:
            "What it counts, for Prometheus. It tells of all teams, so it takes an operator's key; or none, from this machine while " +
            "the server listens on loopback only.",
          security: [{}, { apiKey: [] }, { bearer: [] }],
          rawAnswers: { 200: { type: "text/plain", description: "In Prometheus' text format." } },
          errors: ["unauthorized", "forbidden", "database_unavailable"],
        },
      },
      async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()),
    );
  };
}

async function assertMayRead(
  request: FastifyRequest,
  { apiKeys, operators, listenHost }: MetricsAccess,
): Promise<void> {
  const key = presentedKey(request.headers);
  if (key !== null) {
    const { teamId } = await apiKeys.verify(key);
    if (operators.has(teamId)) return;
    throw new WrennError("forbidden", { message: "The server's metrics are for its operator." });
  }
  if (isLoopback(listenHost) && comesFromThisMachine(request)) return;
  throw new WrennError("unauthorized", {
    message:
      "The server's metrics are for its operator, and for this machine while the server listens on loopback only.",
    suggestion: "Send an operator's key in Authorization: Bearer.",
  });
}

/**
 * Whether a program of this machine asks on its own behalf. A page in this machine's browser, whose name was made to resolve to
 * loopback, still sends that name as Host; a proxy that forwards for others says so.
 */
function comesFromThisMachine({ socket, headers }: FastifyRequest["raw"] | FastifyRequest): boolean {
  const host = /^(?:\[(.+)\]|([^:]+))(?::\d+)?$/.exec(headers.host ?? "");
  return (
    isLoopback(socket.remoteAddress ?? "") &&
    isLoopback(host?.[1] ?? host?.[2] ?? "") &&
    headers.origin === undefined &&
    forwardingHeaders.every((name) => headers[name] === undefined)
  );
}

function isLoopback(host: string): boolean {
  const address = host.replace(/^::ffff:/i, "");
  return address === "localhost" || address === "::1" || (isIP(address) === 4 && address.startsWith("127."));
}
