/** Services in a sandbox, reached from outside through the server. */
import { dataPlaneHeaders } from "@wrenn/contract";
import { readCredentials } from "@wrenn/cli";
import type { Sandbox } from "@wrenn/sdk";
import { pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { shell } from "./harness/guest.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();
let sandbox: Sandbox;

/** A server in the guest: echoes requests as JSON, streams on /stream, and echoes WebSocket messages. */
const guestServer = `
import asyncio, base64, hashlib, sys
async def serve(reader, writer):
    head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
    headers = dict(line.lower().split(": ", 1) for line in head.split("\\r\\n")[1:] if line)
    path = head.split(" ")[1]
    if headers.get("upgrade") == "websocket":
        key = [l.split(": ")[1] for l in head.split("\\r\\n") if l.lower().startswith("sec-websocket-key")][0]
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        writer.write(f"HTTP/1.1 101 x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: {accept}\\r\\n\\r\\n".encode())
        while True:
            first, second = await reader.readexactly(2)
            if first & 15 == 8: break
            mask = await reader.readexactly(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(second & 127)))
            writer.write(bytes([0x80 | first & 15, len(data)]) + data)
    elif path == "/stream":
        writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        for n in range(3):
            writer.write(b"2\\r\\n%d\\n\\r\\n" % n); await writer.drain(); await asyncio.sleep(0.5)
        writer.write(b"0\\r\\n\\r\\n")
    else:
        body = head.encode()
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    await writer.drain(); writer.close()
async def main():
    await asyncio.gather(*[(await asyncio.start_server(serve, host, int(port))).serve_forever() for host, port in (a.split(":") for a in sys.argv[1:])])
asyncio.run(main())
`;

beforeAll(async () => {
  sandbox = await server().createSandbox();
  await shell(sandbox, `cat > /tmp/server.py <<'PYTHON'\n${guestServer}\nPYTHON`);
  await shell(sandbox, "nohup python3 /tmp/server.py 0.0.0.0:8000 127.0.0.1:9000 >/tmp/server.log 2>&1 &");
  const up = await pollUntil(
    async () => ((await sandbox.fetch(8_000, "/").catch(() => null))?.ok === true ? true : null),
    {
      timeoutMs: 20_000,
      intervalMs: 200,
    },
  );
  if (up === null) throw new Error("the server in the guest does not answer");
});

afterAll(async () => {
  await sandbox.destroy();
});

async function headersFor(port: number): Promise<Record<string, string>> {
  const credentials = await readCredentials(server().layout);
  return {
    [dataPlaneHeaders.sandboxId]: sandbox.id,
    [dataPlaneHeaders.port]: String(port),
    "x-api-key": credentials?.api_key ?? "",
  };
}

describe.each([
  ["on all of the guest's addresses", 8_000],
  ["on the guest's loopback only", 9_000],
])("a service %s", (_where, port) => {
  it("answers HTTP, and does not see the caller's key", async () => {
    const response = await sandbox.fetch(port, "/path?query=1", { headers: { "x-mine": "kept" } });
    const seen = await response.text();
    expect(response.status).toBe(200);
    expect(seen).toContain("GET /path?query=1 HTTP/1.1");
    expect(seen.toLowerCase()).toContain("x-mine: kept");
    expect(seen).not.toContain((await headersFor(port))["x-api-key"]);
  });

  it("streams its answer as it comes", async () => {
    const response = await sandbox.fetch(port, "/stream");
    const arrivals: number[] = [];
    for await (const chunk of response.body ?? []) {
      expect(chunk.length).toBeGreaterThan(0);
      arrivals.push(performance.now());
    }
    expect((arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0)).toBeGreaterThan(500);
  });

  it("speaks WebSocket", async () => {
    const socket = new WebSocket(server().url.replace("http:", "ws:"), { headers: await headersFor(port) });
    const echoed = await new Promise<string>((resolve, reject) => {
      socket.once("open", () => {
        socket.send("to the guest and back");
      });
      socket.once("message", (data: Buffer) => {
        resolve(data.toString());
      });
      socket.once("error", reject);
    });
    socket.close();
    expect(echoed).toBe("to the guest and back");
  });
});

describe("the data plane", () => {
  it("says when nothing listens on a port", async () => {
    await expect(sandbox.fetch(4_321, "/")).rejects.toMatchObject({ code: "port_closed", status: 502 });
  });

  it("lets nobody in without a key", async () => {
    const { "x-api-key": _key, ...headers } = await headersFor(8_000);
    const response = await fetch(`${server().url}/`, { headers });
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ error: { code: "unauthorized" } });
  });

  it("says when there is no such sandbox", async () => {
    const headers = {
      ...(await headersFor(8_000)),
      [dataPlaneHeaders.sandboxId]: "sb-01890000-0000-7000-8000-000000000000",
    };
    const response = await fetch(`${server().url}/`, { headers });
    expect(await response.json()).toMatchObject({ error: { code: "sandbox_not_found" } });
  });

  it("ends a request's work in the guest when its client goes away in the middle", async () => {
    const stop = new AbortController();
    const response = await sandbox.fetch(8_000, "/stream", { signal: stop.signal });
    expect(response.status).toBe(200);
    stop.abort();
    await expect(response.text()).rejects.toThrow("abort");
    expect((await sandbox.fetch(8_000, "/")).status).toBe(200);
  });
});
