/** What a user finds in a sandbox that was paused, when it goes on: also after every part of the server was killed meanwhile. */
import type { Sandbox } from "@wrenn/sdk";
import { pollUntil } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { crash, shell } from "./harness/guest.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();

const port = 8_000;

/** In the guest: keeps connections open, and answers how many there have been, and how many requests. */
const countingServer = `
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
connections = requests = 0
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def setup(self):
        global connections
        connections += 1
        super().setup()
    def do_GET(self):
        global requests
        requests += 1
        body = f"{connections} {requests}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(("0.0.0.0", ${port}), Handler).serve_forever()
`;

/** Connections and requests that the server in the guest has seen, this one included. */
async function ask(sandbox: Sandbox): Promise<{ connections: number; requests: number }> {
  const response = await sandbox.fetch(port, "/");
  expect(response.status).toBe(200);
  const [connections = 0, requests = 0] = (await response.text()).split(" ").map(Number);
  return { connections, requests };
}

/** The first request after `before`: it came once, and over no connection that was there then. */
function expectAnswered(now: Awaited<ReturnType<typeof ask>>, before: Awaited<ReturnType<typeof ask>>): void {
  expect(now.requests).toBe(before.requests + 1);
  expect(now.connections).toBeGreaterThan(before.connections);
}

describe("the first request after", () => {
  it("a resume or a recovery is answered over a new connection, and sent once", async () => {
    const sandbox = await server().createSandbox();
    await shell(sandbox, `cat > /tmp/server.py <<'PYTHON'\n${countingServer}\nPYTHON`);
    await shell(sandbox, "nohup python3 /tmp/server.py >/tmp/server.log 2>&1 &");
    const up = async (): Promise<true | null> =>
      (await sandbox.fetch(port, "/").catch(() => null))?.ok === true ? true : null;
    expect(await pollUntil(up, { timeoutMs: 30_000, intervalMs: 200 })).toBe(true);
    const before = await ask(sandbox);
    await sandbox.pause();
    await sandbox.resume();
    expectAnswered(await ask(sandbox), before);
    // Now there is an idle connection of after the resume, which the recovery leaves behind.
    await crash(sandbox);
    await sandbox.recover({ from: "last_pause" });
    expectAnswered(await ask(sandbox), before);
    await sandbox.destroy();
  });
});

describe("paused sandboxes", () => {
  it("all resume after every process of the server was killed", async () => {
    const sandboxes = [await server().createSandbox(), await server().createSandbox()];
    for (const sandbox of sandboxes) {
      await shell(sandbox, "head -c 3000000 /dev/urandom > /dev/shm/memory; cp /dev/shm/memory /tmp/disk", {
        user: "root",
      });
      await sandbox.pause();
    }
    // The supervisor first, so that it starts nothing again.
    for (const part of ["server", "control-plane", "host-agent", "postgres"]) {
      process.kill(await server().pidOf(part), "SIGKILL");
    }
    const started = await server().cli(["up", "--detach"]);
    expect(started.exitCode).toBe(0);
    await server().untilHealthy();
    for (const sandbox of sandboxes) {
      expect((await sandbox.refresh()).status).toBe("paused");
      await sandbox.resume();
      expect(await shell(sandbox, "cmp /dev/shm/memory /tmp/disk && stat -c %s /tmp/disk")).toMatchObject({
        stdout: "3000000\n",
      });
      await sandbox.destroy();
    }
  });
});
