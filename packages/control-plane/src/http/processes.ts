/** `/v1/sandboxes/{id}/processes`: started in the background, listed, signalled. */
import {
  listProcessesSchema,
  parseId,
  processParamsSchema,
  sandboxParamsSchema,
  signalProcessSchema,
  startedProcessSchema,
  startProcessSchema,
} from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Commands } from "../services/commands.ts";
import { requireKey } from "./authenticate.ts";
import { commandErrors, reachErrors } from "./route-errors.ts";

const tags = ["Commands"];

export function processRoutes({ apiKeys, commands }: { apiKeys: ApiKeys; commands: Commands }): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));

    app.post(
      "/v1/sandboxes/:id/processes",
      {
        schema: {
          operationId: "startProcess",
          tags,
          summary: "Start a process",
          description: "It goes on whoever leaves, and can be followed by its stream.",
          params: sandboxParamsSchema,
          body: startProcessSchema,
          response: { 201: startedProcessSchema },
          errors: [...reachErrors, ...commandErrors, "process_tag_taken"],
        },
      },
      async (request, reply) => {
        const process = await commands.start(request.teamId, parseId("sandbox", request.params.id), request.body);
        process.leave();
        return reply.code(201).send({ pid: process.pid, tag: process.tag });
      },
    );

    app.get(
      "/v1/sandboxes/:id/processes",
      {
        schema: {
          operationId: "listProcesses",
          tags,
          summary: "List processes",
          description: "Those that were started through Wrenn and have not ended, oldest first.",
          params: sandboxParamsSchema,
          response: { 200: listProcessesSchema },
          errors: reachErrors,
        },
      },
      async (request) => ({
        processes: await commands.list(request.teamId, parseId("sandbox", request.params.id)),
      }),
    );

    app.post(
      "/v1/sandboxes/:id/processes/:pid/signal",
      {
        schema: {
          operationId: "signalProcess",
          tags,
          summary: "Send a signal to a process",
          description: "To its whole process group; SIGKILL to all that it has started.",
          params: processParamsSchema,
          body: signalProcessSchema,
          response: { 204: z.undefined().describe("The signal is sent.") },
          errors: [...reachErrors, "process_not_found"],
        },
      },
      async (request, reply) => {
        const { id, pid } = request.params;
        await commands.signal(request.teamId, parseId("sandbox", id), pid, request.body.signal);
        return reply.code(204).send();
      },
    );
  };
}
