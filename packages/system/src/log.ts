/** The log of a part of the server: one JSON object per line on standard output, without secrets. */
import { writeSync } from "node:fs";
import { describeError, WrennError } from "@wrenn/contract";
import { type DestinationStream, type Logger, pino } from "pino";

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

export interface LogOptions {
  readonly level: LogLevel;
  /** What every line says of where it comes from. */
  readonly base?: Readonly<Record<string, unknown>>;
  /** Standard output unless said otherwise. */
  readonly destination?: DestinationStream;
}

export function createLog({ level, base, destination }: LogOptions): Logger {
  const options = {
    level,
    base: base ?? null,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: secrets, censor: "[redacted]" },
    serializers: { err: describe },
  };
  return pino(options, destination ?? new LossyOutput(process.stdout.fd));
}

/**
 * A line that cannot be written, as on a full disk or to a reader that has gone, is lost: no work waits for it, and no process ends by it.
 * (Pino's own destination ends the process, and while that ends tries to write for ever.)
 */
export class LossyOutput implements DestinationStream {
  readonly #descriptor: number;
  #isTorn = false;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(line: string): void {
    let left = Buffer.from(this.#isTorn ? `\n${line}` : line);
    try {
      while (left.length > 0) {
        left = left.subarray(writeSync(this.#descriptor, left));
        this.#isTorn = left.length > 0;
      }
    } catch {
      // There is nobody to tell.
    }
  }
}

/** Other fields of an error can hold anything, such as whole rows of a table, so only messages, codes and the stack are written. */
function describe(error: unknown): unknown {
  if (!(error instanceof Error)) return describeError(error);
  return {
    ...(error instanceof WrennError ? { code: error.code, details: error.details } : {}),
    message: describeError(error),
    stack: error.stack,
  };
}
