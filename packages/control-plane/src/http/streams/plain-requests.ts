/** The addresses of the WebSockets, as plain requests find them: 426. So that they are routes like all others, and described. */
import { attachStreamQuerySchema, processParamsSchema, sandboxParamsSchema, WrennError } from "@wrenn/contract";
import type { FastifyReply, FastifyRequest, FastifySchema } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { streamRoutes } from "./stream-address.ts";

/** What they have in common. The upgrade itself is answered by the streams (streams.ts), with the same errors. */
const everyStream = {
  tags: ["Commands"],
  params: sandboxParamsSchema,
  response: { 101: z.undefined().describe("Messages follow: docs/api.md, Streams.") },
  errors: [
    "upgrade_required",
    "origin_not_allowed",
    "sandbox_state_conflict",
    "sandbox_paused",
    "sandbox_busy",
    "host_unavailable",
  ],
} satisfies FastifySchema;

export function plainStreamRequests(): FastifyPluginAsyncZod {
  return async (app) => {
    const answered = async (_request: FastifyRequest, reply: FastifyReply): Promise<never> => {
      // RFC 9110, 15.5.22: the answer says which protocol is needed.
      void reply.header("Upgrade", "websocket");
      throw new WrennError("upgrade_required");
    };
    app.get(
      streamRoutes.command,
      {
        schema: {
          ...everyStream,
          operationId: "streamExec",
          summary: "Run a command in a stream (WebSocket)",
          description: "Its output as it comes, and its input. The first message says which command.",
        },
      },
      answered,
    );
    app.get(
      streamRoutes.terminal,
      {
        schema: {
          ...everyStream,
          operationId: "openTerminal",
          summary: "Open a terminal, or one that runs (WebSocket)",
          description: "The first message says which. What a terminal showed last is sent again to who attaches to it.",
        },
      },
      answered,
    );
    app.get(
      streamRoutes.attach,
      {
        schema: {
          ...everyStream,
          operationId: "followProcess",
          summary: "Follow a process that runs (WebSocket)",
          description: "Its output as it comes, and its input.",
          params: processParamsSchema,
          querystring: attachStreamQuerySchema,
        },
      },
      answered,
    );
  };
}
