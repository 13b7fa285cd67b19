/** The addresses of the WebSockets, as plain requests find them: 426. So that they are routes like all others, and described. */
import { attachStreamQuerySchema, WrennError } from "@wrenn/contract";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { streamRoutes } from "./stream-address.ts";

const byId = z.object({ id: z.string() });
const byPid = byId.extend({ pid: z.string() });

export function plainStreamRequests(): FastifyPluginAsyncZod {
  return async (app) => {
    const answered = async (_request: FastifyRequest, reply: FastifyReply): Promise<never> => {
      // RFC 9110, 15.5.22: the answer says which protocol is needed.
      void reply.header("Upgrade", "websocket");
      throw new WrennError("upgrade_required");
    };
    app.get(streamRoutes.command, { schema: { params: byId } }, answered);
    app.get(streamRoutes.terminal, { schema: { params: byId } }, answered);
    app.get(streamRoutes.attach, { schema: { params: byPid, querystring: attachStreamQuerySchema } }, answered);
  };
}
