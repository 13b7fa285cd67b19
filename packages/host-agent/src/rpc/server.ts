/** The host agent's one listener: RPC and tunnels on a unix socket that only root can open. */
import { rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createConnection } from "node:net";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { WrennError } from "@wrenn/contract";
import { hostAgentRoutes, type ServiceOptions } from "./service.ts";

export async function listen(socketPath: string, options: ServiceOptions): Promise<Server> {
  await clearSocket(socketPath);
  const server = createServer(connectNodeAdapter({ routes: hostAgentRoutes(options) }));
  // Creations take minutes on a busy host; every call has its own deadlines.
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    // From its first moment the socket is nobody else's: it is bound within this call.
    const umask = process.umask(0o177);
    server.listen(socketPath, resolve);
    process.umask(umask);
  });
  return server;
}

/** Removes the socket of a host agent that is no more. */
async function clearSocket(socketPath: string): Promise<void> {
  const alive = await new Promise<boolean>((resolve) => {
    const socket = createConnection(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => {
      resolve(false);
    });
  });
  if (alive) {
    throw new WrennError("setup_failed", {
      message: `Another process serves ${socketPath}.`,
      suggestion: "Stop it first, or set WRENN_DIR to another directory.",
    });
  }
  await rm(socketPath, { force: true });
}
