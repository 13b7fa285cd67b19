/** The same client for both sides of every comparison: the guest agent's protocol, straight to a guest or through Wrenn. */
import { setTimeout as delay } from "node:timers/promises";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { processProto } from "@wrenn/contract";

export interface GuestEndpoint {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Runs a command, `echo` unless said otherwise, and returns once its output is in hand. */
export async function firstOutput(
  endpoint: GuestEndpoint,
  [cmd, ...args]: readonly [string, ...string[]] = ["/bin/echo", "ready"],
): Promise<void> {
  let seen = false;
  for await (const { event } of processesOf(endpoint).start({ process: { cmd, args }, stdin: false })) {
    if (event?.event.case === "data") seen = true;
  }
  if (!seen) throw new Error("the first command printed nothing");
}

/** The process service of a guest agent. */
export function processesOf(endpoint: GuestEndpoint): Client<typeof processProto.Process> {
  const interceptor: Interceptor = (next) => (request) => {
    for (const [name, value] of Object.entries(endpoint.headers)) request.header.set(name, value);
    return next(request);
  };
  const transport = createConnectTransport({
    baseUrl: endpoint.url,
    useBinaryFormat: true,
    interceptors: [interceptor],
  });
  return createClient(processProto.Process, transport);
}

/** Waits until a guest that is booting answers, as Wrenn's host agent does, and gives it its configuration. */
export async function awaitGuest(endpoint: GuestEndpoint, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline) {
    try {
      const response = await fetch(`${endpoint.url}/health`, { signal: AbortSignal.timeout(250) });
      if (response.ok) break;
    } catch {
      // Nothing listens yet.
    }
    await delay(5);
  }
  const initialised = await fetch(`${endpoint.url}/init`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ timestamp: new Date().toISOString(), envVars: {} }),
  });
  if (!initialised.ok) throw new Error(`/init answered ${initialised.status}`);
}
