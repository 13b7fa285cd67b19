/** The log: one JSON object per line on standard output, without secrets. */
import { describeError, WrennError } from "@wrenn/contract";
import { pino } from "pino";
import type { DestinationStream, Logger } from "pino";

export const logLevels = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

/** Nothing logs these on purpose. */
const secrets = [
  "headers",
  "req.headers",
  "request.headers",
  "api_key",
  "access_token",
  "accessToken",
  "envs",
  "*.envs",
];

export function createLog(level: LogLevel, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: secrets, censor: "[redacted]" },
    serializers: { err: describe },
  };
  return destination === undefined ? pino(options) : pino(options, destination);
}

/** Fields of a database's error can hold whole rows, so only messages, codes and the stack are written. */
function describe(error: unknown): unknown {
  if (!(error instanceof Error)) return describeError(error);
  return {
    ...(error instanceof WrennError ? { code: error.code, details: error.details } : {}),
    message: describeError(error),
    stack: error.stack,
  };
}
