/** Whether a client still waits for its answer. */
import type { FastifyReply } from "fastify";

/**
 * Aborted when the client leaves before it has its whole answer. Fastify's own `request.signal` is aborted too early: with Node 20 a
 * request counts as closed once its body has been read.
 */
export function whenClientLeaves({ raw }: FastifyReply): AbortSignal {
  const left = new AbortController();
  raw.once("close", () => {
    if (!raw.writableFinished) left.abort();
  });
  return left.signal;
}
