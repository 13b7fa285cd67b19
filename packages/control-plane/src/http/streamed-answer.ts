/** Answers that may be long: when to give them up. */
import { deadlines, WrennError } from "@wrenn/contract";
import type { FastifyReply } from "fastify";

/** One that takes nothing of a long answer would hold its connection, and what is behind it in the guest, for ever. */
export function giveUpIdleReader({ raw }: FastifyReply): void {
  raw.setTimeout(deadlines.dataPlaneIdle, () => raw.destroy());
}

/** For the work behind an answer: aborted when its caller is gone before it had all of it. */
export function endedByClient({ raw }: FastifyReply): AbortController {
  const ending = new AbortController();
  raw.once("close", () => {
    if (raw.writableFinished) return;
    // Nobody is told, but a log: it is nothing that the server did wrong.
    ending.abort(new WrennError("invalid_request", { message: "The client left before it had the answer." }));
  });
  return ending;
}
