/** What makes `wrenn run` and `wrenn create` need no preparation: whatever is missing is installed, built and started first. */
import { deadlines, WrennError } from "@wrenn/contract";
import { checkHealth } from "@wrenn/sdk";
import { type Layout, pollUntil } from "@wrenn/system";
import { type Connection, connectToServer, findReadyServer, startServer, usesRemoteServer } from "./local-server.ts";
import { repositoryRoot } from "./server/installation.ts";
import type { Progress } from "./terminal/progress.ts";

export async function ensureServer(layout: Layout, progress: Progress, signal?: AbortSignal): Promise<Connection> {
  if (!usesRemoteServer() && (await findReadyServer(layout, signal)) === null) {
    await setUpMachine(layout);
    await progress.milestone("starting Wrenn", () => startServer(layout, signal));
  }
  const connection = await connectToServer(layout);
  await waitUntilReachable(connection, signal);
  return connection;
}

/** The server may just be restarting its control plane. */
async function waitUntilReachable({ api }: Connection, signal: AbortSignal | undefined): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  const health = await pollUntil(
    async () => {
      try {
        return await checkHealth({ ...api, ...options });
      } catch {
        signal?.throwIfAborted();
        return null;
      }
    },
    { timeoutMs: deadlines.serverStart / 4, intervalMs: 100, ...options },
  );
  if (health === null) throw new WrennError("server_unreachable");
}

/** Says something only where there is something to do. `WRENN_SETUP=never` leaves the machine as it is. */
export async function setUpMachine(layout: Layout): Promise<void> {
  if (process.env["WRENN_SETUP"] === "never") return;
  const { runSetup } = await import("./setup/index.ts");
  await runSetup({ layout, repositoryRoot, output: process.stderr });
}
