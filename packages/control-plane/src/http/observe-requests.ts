/** Tells of each request of the API once it is over: in the log, and to whoever counts. */
import type { FastifyInstance, FastifyRequest } from "fastify";

export interface EndedRequest {
  readonly method: string;
  /** The route's pattern, such as `/v1/sandboxes/:id`; undefined where none matched. */
  readonly route: string | undefined;
  /** Null when the client had gone before its answer was complete. */
  readonly status: number | null;
  readonly milliseconds: number;
}

export interface RequestObserver {
  began(): void;
  ended(request: EndedRequest): void;
}

/** By the end of the response, because Fastify's own hooks do not hear of clients that leave early. */
export function observeRequests(app: FastifyInstance, observer: RequestObserver): void {
  app.addHook("onRequest", (request, { raw }, done) => {
    const start = performance.now();
    observer.began();
    raw.once("close", () => {
      const { method, routeOptions, teamId } = request;
      const status = raw.writableFinished ? raw.statusCode : null;
      const milliseconds = performance.now() - start;
      const route = routeOptions.url;
      observer.ended({ method, route, status, milliseconds });
      const sandboxId = sandboxNamedBy(request);
      request.log.info({ method, route, teamId, sandboxId, status, milliseconds: Math.round(milliseconds) }, "request");
    });
    done();
  });
}

/** The sandbox in a request's address, as far as it is one, for the log. */
export function sandboxNamedBy({ routeOptions, params }: FastifyRequest): string | undefined {
  if (routeOptions.url?.startsWith("/v1/sandboxes/:id") !== true) return undefined;
  const id = typeof params === "object" && params !== null && "id" in params ? params.id : undefined;
  return typeof id === "string" && /^sb-[0-9a-f-]{36}$/.test(id) ? id.slice("sb-".length) : undefined;
}
