/** The public API as a Fastify application. It owns no listener: server.ts hands it the requests that are its own. */
import type http from "node:http";
import { deadlines, httpLimits, WrennError } from "@wrenn/contract";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import { fastify, LogController } from "fastify";
import { serializerCompiler, validatorCompiler } from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import type { HealthCheck } from "../services/health.ts";
import type { Creations } from "../services/creations.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { sendError } from "./errors.ts";
import { healthRoute } from "./health.ts";
import { requestId } from "../services/request-id.ts";
import { sandboxRoutes } from "./sandboxes.ts";
import { answerUnknownRoutes } from "./unknown-routes.ts";

export interface ApiServices {
  readonly sandboxes: Sandboxes;
  readonly creations: Creations;
  readonly tokens: AccessTokens;
  readonly apiKeys: ApiKeys;
  readonly health: HealthCheck;
  readonly log: Logger;
}

export type RequestHandler = (request: http.IncomingMessage, response: http.ServerResponse) => void;

/** `makeServer` gets the application's request handler and returns the server that will call it. */
export async function buildApi(
  services: ApiServices,
  makeServer: (handle: RequestHandler) => http.Server,
): Promise<FastifyInstance> {
  const loggerInstance: FastifyBaseLogger = services.log;
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
    // Requests that still arrive while closing are refused by server.ts, with an error of the registry.
    return503OnClosing: false,
    forceCloseConnections: false,
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(sendError);
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body: string, done) => {
    // Clients that say JSON with every request say it with those too that have no body.
    if (body === "" && request.routeOptions.schema?.body === undefined) done(null, undefined);
    else void parseJson(request, body, done);
  });
  app.addHook("onRequest", async (request, reply) => {
    void reply.header("X-Request-Id", request.id);
    boundBody(request.raw, () => {
      void reply.header("Connection", "close").send(new WrennError("request_timeout"));
    });
  });
  app.addHook("onResponse", async (request, reply) => {
    const { method, routeOptions, teamId } = request;
    const milliseconds = Math.round(reply.elapsedTime);
    request.log.info({ method, route: routeOptions.url, teamId, status: reply.statusCode, milliseconds }, "request");
  });
  answerUnknownRoutes(app);
  await app.register(healthRoute(services.health));
  await app.register(sandboxRoutes(services));
  await app.ready();
  return app;
}

/** A body that trickles in must not hold a connection for ever: the API's own bodies are small. */
function boundBody(request: http.IncomingMessage, onLate: () => void): void {
  if (request.complete) return;
  const timer = setTimeout(() => {
    if (!request.complete) onLate();
  }, deadlines.requestBody);
  request.once("close", () => {
    clearTimeout(timer);
  });
}
