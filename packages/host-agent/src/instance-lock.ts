/** At most one host agent for a WRENN_DIR. */
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:net";
import { WrennError } from "@wrenn/contract";
import { hasErrno } from "@wrenn/system";

/**
 * Takes the lock: the name of an abstract unix socket (unix(7)), which the kernel gives to one process and takes back when that
 * ends, however it ends. Nothing is left to be judged stale.
 * @throws WrennError `setup_failed` when another host agent holds it
 */
export async function lockInstance(wrennDir: string): Promise<Server> {
  const name = createHash("sha256").update(wrennDir).digest("hex").slice(0, 32);
  const server = createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(`\0wrenn-host-agent-${name}`, resolve);
    });
  } catch (cause) {
    if (!hasErrno(cause, "EADDRINUSE")) throw cause;
    throw new WrennError("setup_failed", {
      message: `Another host agent is already running for ${wrennDir}.`,
      suggestion: "Stop it first, or set WRENN_DIR to another directory.",
      cause,
    });
  }
  server.unref();
  return server;
}
