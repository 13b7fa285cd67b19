/** Whether a server is there and well. */
import { type Health, healthSchema } from "@wrenn/contract";
import { withLimits } from "./call-signal.ts";
import { Connection, type ConnectionOptions, type RequestOptions } from "./connection.ts";

export type { Health } from "@wrenn/contract";

/**
 * Asks whether the server, its database and its hosts answer. Needs no key, and is not tried again.
 * @throws ConnectionError `server_unreachable`; TimeoutError
 */
export async function checkHealth(options: ConnectionOptions & RequestOptions = {}): Promise<Health> {
  const connection = new Connection(options);
  const limits = { signal: options.signal, timeoutMs: connection.timeoutMs(options), what: "GET /health" };
  return withLimits(limits, (call) =>
    // A degraded server answers 503 with the same body.
    connection.exchange({ method: "GET", path: "/health", answer: healthSchema, alsoFine: [503] }, call),
  );
}
