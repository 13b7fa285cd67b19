/** `/v1/hosts`: what machines there are, and what they start sandboxes with. For operators: users need not know. */
import { formatId, listHostsSchema, memoryBackends, WrennError } from "@wrenn/contract";
import type { Host, TeamId } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Store } from "../store/database.ts";
import { listHosts } from "../store/hosts.ts";
import type { HostRow } from "../store/schema.ts";
import { requireKey } from "./authenticate.ts";

export function hostRoutes({
  store,
  apiKeys,
  operators,
}: {
  store: Store;
  apiKeys: ApiKeys;
  /** Teams whose keys may see them. */
  operators: ReadonlySet<TeamId>;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));
    app.get(
      "/v1/hosts",
      {
        schema: {
          operationId: "listHosts",
          tags: ["Server"],
          summary: "List hosts",
          description:
            "The machines that sandboxes run on, each with its engine, and why it has chosen that. It takes an operator's key.",
          response: { 200: listHostsSchema },
          errors: ["forbidden"],
        },
      },
      async (request) => {
        if (!operators.has(request.teamId)) {
          throw new WrennError("forbidden", { message: "Hosts are for the server's operator." });
        }
        return { hosts: (await listHosts(store)).map((host) => present(host)) };
      },
    );
  };
}

function present(row: HostRow): Host {
  return {
    id: formatId("host", row.id),
    name: row.name,
    status: row.status,
    vcpus: row.cpu_count,
    memory_mib: row.memory_mib,
    agent_version: row.agent_version,
    engine: row.engine,
    engine_version: row.engine_version,
    engine_reason: row.engine_reason,
    cpu: row.cpu,
    disk_format: row.disk_format,
    disk_reason: row.disk_reason,
    disk_formats: row.disk_formats,
    memory_backends: memoryBackends.filter((backend) => row.memory_backends.includes(backend)),
    last_seen_at: row.last_seen_at?.toISOString() ?? null,
  };
}
