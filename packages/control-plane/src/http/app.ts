/** The public API as a Fastify application. It owns no listener: server.ts hands it the requests that are its own. */
import type http from "node:http";
import { httpLimits, WrennError } from "@wrenn/contract";
import type { FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { fastify, LogController } from "fastify";
import { serializerCompiler, validatorCompiler } from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Guests } from "../services/guests.ts";
import type { Commands } from "../services/commands.ts";
import type { HealthCheck } from "../services/health.ts";
import type { Creations } from "../services/creations.ts";
import type { Forks } from "../services/forks.ts";
import type { Freezing } from "../services/freezing.ts";
import type { Recoveries } from "../services/recoveries.ts";
import type { Snapshots } from "../services/snapshots.ts";
import type { Observation } from "../services/observation.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import type { Store } from "../store/database.ts";
import { discardRest } from "./discard-rest.ts";
import { serveDocsPage } from "./docs-page.ts";
import { sendError } from "./errors.ts";
import { fileRoutes } from "./files.ts";
import { execRoute } from "./exec.ts";
import { healthRoute } from "./health.ts";
import { hostRoutes } from "./hosts.ts";
import { metricsRoute } from "./metrics.ts";
import type { MetricsAccess } from "./metrics.ts";
import { observationRoutes } from "./observation.ts";
import { observeRequests } from "./observe-requests.ts";
import type { RequestObserver } from "./observe-requests.ts";
import { processRoutes } from "./processes.ts";
import { describeApi } from "./openapi.ts";
import { requestId } from "../services/request-id.ts";
import { lifecycleRoutes } from "./lifecycle.ts";
import { sandboxRoutes } from "./sandboxes.ts";
import { snapshotRoutes } from "./snapshots.ts";
import { plainStreamRequests } from "./streams/plain-requests.ts";
import { answerUnknownRoutes } from "./unknown-routes.ts";

export interface ApiServices {
  readonly store: Store;
  readonly sandboxes: Sandboxes;
  readonly creations: Creations;
  readonly freezing: Freezing;
  readonly forks: Forks;
  readonly recoveries: Recoveries;
  readonly snapshots: Snapshots;
  readonly tokens: AccessTokens;
  readonly apiKeys: ApiKeys;
  readonly commands: Commands;
  readonly health: HealthCheck;
  readonly observation: Observation;
  readonly metrics: Registry;
  readonly requestObserver: RequestObserver;
  readonly metricsAccess: Pick<MetricsAccess, "operators" | "listenHost">;
  readonly requestBodyMs: number;
  readonly guests: Guests;
  readonly log: Logger;
  /** Aborted when the server stops. */
  readonly stopping: AbortSignal;
  /** How long a client may send nothing of an upload. */
  readonly uploadIdleMs: number;
}

declare module "fastify" {
  interface FastifyContextConfig {
    /** The body may be of any size and take any time: its route reads it as it comes. */
    bodyIsStreamed?: boolean;
  }
}

export type RequestHandler = (request: http.IncomingMessage, response: http.ServerResponse) => void;

/** `makeServer` gets the application's request handler and returns the server that will call it. */
export async function buildApi(
  services: ApiServices,
  makeServer: (handle: RequestHandler) => http.Server,
): Promise<FastifyInstance> {
  const app = await makeApplication(services, makeServer);
  await app.register(healthRoute(services.health));
  await app.register(metricsRoute(services.metrics, { apiKeys: services.apiKeys, ...services.metricsAccess }));
  await app.register(hostRoutes({ ...services, operators: services.metricsAccess.operators }));
  await app.register(sandboxRoutes(services));
  await app.register(lifecycleRoutes(services));
  await app.register(snapshotRoutes(services));
  await app.register(observationRoutes(services));
  await app.register(fileRoutes(services));
  await app.register(execRoute(services));
  await app.register(processRoutes(services));
  await app.register(plainStreamRequests());
  await app.ready();
  return app;
}

/** What all routes have in common: how requests are checked, how answers and errors are shaped, and how both are described. */
export async function makeApplication(
  { log, requestObserver, requestBodyMs }: Pick<ApiServices, "log" | "requestObserver" | "requestBodyMs">,
  makeServer: (handle: RequestHandler) => http.Server,
): Promise<FastifyInstance> {
  const loggerInstance: FastifyBaseLogger = log;
  const app = fastify({
    loggerInstance,
    // One line per request, written below, says more in less.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: httpLimits.bodyBytes,
    genReqId: requestId,
    serverFactory: (handle) => makeServer(handle),
    // Behind this, a wrong address or an unparsable one gets the same shape of answer as everything else.
    frameworkErrors: (error, request, reply) => {
      void sendError(error, request, reply);
    },
    // server.ts answers what is no request.
    clientErrorHandler: () => undefined,
    // Requests that still arrive while closing are refused by server.ts, with an error of the registry.
    return503OnClosing: false,
    forceCloseConnections: false,
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(sendError);
  // Fastify would take text too, as a string that no schema wants.
  app.removeContentTypeParser("text/plain");
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body: string, done) => {
    // Clients that say JSON with every request say it with those too that have no body.
    if (body === "" && request.routeOptions.schema?.body === undefined) done(null, undefined);
    else void parseJson(request, body, done);
  });
  observeRequests(app, requestObserver);
  app.addHook("onRequest", async (request, reply) => {
    void reply.header("X-Request-Id", request.id).header("X-Content-Type-Options", "nosniff");
    if (request.routeOptions.config.bodyIsStreamed === true) {
      reply.raw.once("finish", () => {
        discardRest(request.raw);
      });
    } else boundBody(request, reply, requestBodyMs);
  });
  answerUnknownRoutes(app);
  app.addHook("onRequest", async (request) => {
    if (request.routeOptions.config.bodyIsStreamed !== true) refuseEncodedBody(request);
  });
  await describeApi(app);
  await serveDocsPage(app);
  return app;
}

/** A body that trickles in must not hold a connection for ever: the API's own bodies are small. */
function boundBody({ raw }: FastifyRequest, reply: FastifyReply, timeoutMs: number): void {
  if (raw.complete) return;
  const timer = setTimeout(() => {
    if (raw.complete) return;
    // One that was answered before it had come is still being read, to keep the connection.
    if (reply.sent) raw.socket.destroy();
    else void reply.header("Connection", "close").send(new WrennError("request_timeout"));
  }, timeoutMs);
  raw.once("close", () => {
    if (raw.complete || raw.socket.destroyed) clearTimeout(timer);
  });
}

/** A few bytes that decompress to gigabytes are not taken at all, and nothing else that is compressed either. */
function refuseEncodedBody({ headers }: FastifyRequest): void {
  const encoding = headers["content-encoding"];
  if (encoding === undefined || encoding.toLowerCase() === "identity") return;
  throw new WrennError("unsupported_media_type", {
    message: "A body with a Content-Encoding is not understood here.",
    suggestion: "Send the body as it is.",
  });
}
