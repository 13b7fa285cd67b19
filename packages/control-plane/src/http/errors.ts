/** Every failure of the public API in one shape: `{error: {code, message, details?, suggestion, request_id}}`. */
import { asWrennError, WrennError } from "@wrenn/contract";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { sandboxNamedBy } from "./observe-requests.ts";
import { errorsOf } from "./route-errors.ts";

/** Logged when a route answers an error that its description does not name. Tests look for it. */
export const undescribedError = "the description of this route does not name the error that it answers";

/** What Fastify itself refuses, by its stable codes. */
function fromFastify(error: FastifyError): WrennError | null {
  switch (error.code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return new WrennError("body_too_large", { cause: error });
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      return new WrennError("unsupported_media_type", { cause: error });
    case "FST_ERR_CTP_INVALID_JSON_BODY":
    case "FST_ERR_CTP_EMPTY_JSON_BODY":
      return new WrennError("malformed_json", { cause: error });
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
      return invalid("The body is not as long as Content-Length says", error);
    case "FST_ERR_BAD_URL":
      return invalid("The address is not a valid percent-encoding", error);
    case "FST_ERR_MAX_PARAM_LENGTH":
      return invalid("A part of the address is too long", error);
    default:
      return null;
  }
}

function invalid(problem: string, cause: unknown): WrennError {
  const suggestion = "Correct what the message names and send it again.";
  return new WrennError("invalid_request", { message: `${problem}.`, suggestion, cause });
}

export function toWrennError(error: unknown): WrennError {
  if (error instanceof WrennError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const where = error.validationContext ?? "body";
    const details = error.validation.map((problem) => ({
      field: fieldName(where, problem.instancePath),
      problem: problem.message ?? "is not valid",
    }));
    const first = details[0];
    return new WrennError("invalid_request", {
      ...(first === undefined ? {} : { message: `The request is not valid: ${first.field}: ${first.problem}.` }),
      details: { fields: details },
      cause: error,
    });
  }
  if (isFastifyError(error)) {
    const refused = fromFastify(error);
    if (refused !== null) return refused;
  }
  const status = claimedStatus(error);
  // Of files: one that is not to be served is not there.
  if (status === 403 || status === 404) return new WrennError("route_not_found", { cause: error });
  if (status >= 400 && status < 500) return invalid("The request cannot be read", error);
  return asWrennError(error);
}

/** Fastify's error handler. Causes go to the log; the caller sees the code, the sentence and what to do. */
export async function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const wrennError = toWrennError(error);
  const { code, details } = wrennError;
  const sandboxId = sandboxNamedBy(request);
  // Its work has been given up, which is no failure.
  if (reply.raw.destroyed) request.log.info({ sandboxId, err: error }, "the client left before its answer");
  else if (wrennError.status >= 500) request.log.error({ sandboxId, err: error, code }, "request failed");
  else request.log.info({ sandboxId, code, details }, "request refused");
  const { url, method, schema } = request.routeOptions;
  const isDescribed = url !== undefined && schema?.hide !== true;
  if (isDescribed && !errorsOf({ url, method, schema }).has(code)) {
    request.log.warn({ url, method, code }, undescribedError);
  }
  await reply
    .code(wrennError.status)
    .header("X-Request-Id", request.id)
    .type("application/json; charset=utf-8")
    .serializer(JSON.stringify)
    .send(wrennError.toBody(request.id));
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && "code" in error && typeof error.code === "string";
}

/** The status that a plugin wants its error to be answered with; 0 where it says none. */
function claimedStatus(error: unknown): number {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number" ? error.statusCode : 0;
}

/** "/envs/FOO" in a body is the field "envs.FOO"; the body as a whole is "body". */
function fieldName(where: string, instancePath: string): string {
  const path = instancePath.split("/").filter((part) => part !== "");
  return path.length === 0 ? where : path.join(".");
}
