/** `/v1/sandboxes/{id}/processes`: started in the background, listed, signalled. */
import {
  listProcessesSchema,
  parseId,
  processPidSchema,
  signalProcessSchema,
  startedProcessSchema,
  startProcessSchema,
} from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Commands } from "../services/commands.ts";
import { requireKey } from "./authenticate.ts";

const byId = z.object({ id: z.string() });
const byPid = byId.extend({ pid: processPidSchema });

export function processRoutes({ apiKeys, commands }: { apiKeys: ApiKeys; commands: Commands }): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/sandboxes/:id/processes",
      { schema: { params: byId, body: startProcessSchema, response: { 201: startedProcessSchema } } },
      async (request, reply) => {
        const process = await commands.start(request.teamId, parseId("sandbox", request.params.id), request.body);
        process.leave();
        return reply.code(201).send({ pid: process.pid, tag: process.tag });
      },
    );

    app.get(
      "/v1/sandboxes/:id/processes",
      { schema: { params: byId, response: { 200: listProcessesSchema } } },
      async (request) => ({
        processes: await commands.list(request.teamId, parseId("sandbox", request.params.id)),
      }),
    );

    app.post(
      "/v1/sandboxes/:id/processes/:pid/signal",
      { schema: { params: byPid, body: signalProcessSchema } },
      async (request, reply) => {
        const { id, pid } = request.params;
        await commands.signal(request.teamId, parseId("sandbox", id), pid, request.body.signal);
        return reply.code(204).send();
      },
    );
  };
}
