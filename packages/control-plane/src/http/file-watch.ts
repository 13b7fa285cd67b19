/**
 * `GET …/files/watch`: what changes in a directory, as server-sent events: `ready` first, `change` for each change, and `error` last.
 */
import { Readable } from "node:stream";
import { asWrennError, watchQuerySchema, WrennError } from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { watchDirectory } from "../services/file-watch.ts";
import type { WatchNews } from "../services/file-watch.ts";
import type { FileAddress } from "./files.ts";
import { fileErrors } from "./route-errors.ts";
import { endedByClient, giveUpIdleReader } from "./streamed-answer.ts";

export interface FileWatchOptions extends FileAddress {
  readonly stopping: AbortSignal;
}

export function fileWatchRoute({ files, params, reach, stopping }: FileWatchOptions): FastifyPluginAsyncZod {
  return async (app) => {
    const schema = {
      operationId: "watchDirectory",
      tags: ["Files"],
      summary: "Watch a directory",
      description:
        "Server-sent events for as long as anyone listens: `ready` first, `change` for each change, and `error` last. A client that comes " +
        "back looks at the directory anew, since changes meanwhile are not told.",
      params,
      querystring: watchQuerySchema,
      rawAnswers: { 200: { type: "text/event-stream", description: "Events, as changes happen." } },
      errors: fileErrors,
    };
    app.get(`${files}/watch`, { schema, exposeHeadRoute: false }, async (request, reply) => {
      const ending = endedByClient(reply);
      const onStopping = (): void => {
        ending.abort(new WrennError("shutting_down"));
      };
      if (stopping.aborted) onStopping();
      stopping.addEventListener("abort", onStopping, { once: true });
      reply.raw.once("close", () => {
        stopping.removeEventListener("abort", onStopping);
      });
      const news = await watchDirectory(await reach(request), request.query, ending);
      // Nobody on the way may keep the events for later.
      void reply.headers({ "Cache-Control": "no-store", "X-Accel-Buffering": "no" }).type("text/event-stream");
      giveUpIdleReader(reply);
      return reply.send(Readable.from(eventsOf(news, request.id), { highWaterMark: 1 }));
    });
  };
}

async function* eventsOf(news: AsyncIterable<WatchNews>, requestId: string): AsyncGenerator<string> {
  yield event("ready", {});
  try {
    for await (const item of news) yield item.kind === "change" ? event("change", item.change) : ": quiet\n\n";
  } catch (error) {
    yield event("error", asWrennError(error).toBody(requestId));
  }
}

/** JSON has no line breaks, so one line of data has it all. */
function event(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
