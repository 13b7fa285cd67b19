/** What the guest agent does in a real VM when it is told that its memory is from the past. */
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import type { Socket } from "node:net";
import { guestAgentPort } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { execute, openTunnel, readAll } from "../testing/guest.ts";
import { TestHostAgent, testToken } from "../testing/host-agent-process.ts";

let agent: TestHostAgent;
let id: string;

beforeAll(async () => {
  agent = await TestHostAgent.prepare();
  await agent.start();
  const { sandbox } = await agent.client.createSandbox(agent.request());
  id = sandbox?.sandboxId ?? "";
});

afterAll(async () => {
  await agent.remove();
});

const inGuest = (command: string): Promise<string> => execute(agent.layout.hostAgentSocket, id, command);

/** A call of the host side. */
async function post(path: string, body: unknown): Promise<{ status: number; answer: string }> {
  const { socket } = await openTunnel(agent.layout.hostAgentSocket, `${id}:${guestAgentPort}`);
  const headers = { "x-access-token": testToken };
  const outgoing = request({ method: "POST", path, headers, createConnection: () => socket });
  outgoing.end(JSON.stringify(body));
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  let answer = "";
  for await (const chunk of response) answer += String(chunk);
  return { status: response.statusCode ?? 0, answer };
}

const renewalSchema = z.object({ reseeded: z.literal(true), connectionsClosed: z.number() });

async function restore(): Promise<number> {
  const entropy = Buffer.alloc(64, 7).toString("base64");
  const { status, answer } = await post("/init", { restored: true, entropy, timestamp: new Date().toISOString() });
  expect(status).toBe(200);
  return renewalSchema.parse(JSON.parse(answer)).connectionsClosed;
}

/** What a command in the guest says, once it says anything. */
async function untilInGuest(command: string): Promise<string> {
  const said = await pollUntil(async () => (await inGuest(command)).trim() || null, { timeoutMs: 20_000 });
  if (said === null) throw new Error(`"${command}" says nothing`);
  return said;
}

/**
 * A server in the guest with a connection of its own inside the guest and one from the host; the next client is told what became
 * of both. Listens for IPv6 too, or for IPv4 alone.
 */
const server = (port: number, address: "::" | "0.0.0.0"): string => `
import socket
family = socket.AF_INET6 if "${address}" == "::" else socket.AF_INET
server = socket.create_server(("${address}", ${port}), family=family, dualstack_ipv6="${address}" == "::")
inside = socket.create_connection(("127.0.0.1", ${port}))
accepted, _ = server.accept()
outside, _ = server.accept()
outside.sendall(b"hello")
try:
    words = "outside ended" if outside.recv(1) == b"" else "outside goes on"
except OSError as error:
    words = "outside: " + error.strerror
accepted.sendall(b"inside goes on")
words += ", " + inside.recv(100).decode()
new, _ = server.accept()
new.sendall(words.encode())
`;

/** Resolves once the server has greeted this connection. */
async function connectTo(port: number): Promise<Socket> {
  const socket = await pollUntil(
    async () => {
      const { status, socket: opened } = await openTunnel(agent.layout.hostAgentSocket, `${id}:${port}`);
      if (status === 200) return opened;
      opened.destroy();
      return null;
    },
    { timeoutMs: 20_000, intervalMs: 100 },
  );
  if (socket === null) throw new Error(`nothing listens on port ${port}`);
  socket.on("error", () => socket.destroy());
  return socket;
}

describe("a restored guest", () => {
  it("has another boot id each time, and nothing piles up", async () => {
    const read = "cat /proc/sys/kernel/random/boot_id";
    const ids = [await inGuest(read)];
    for (let round = 0; round < 2; round++) {
      await restore();
      ids.push(await inGuest(read));
    }
    expect(new Set(ids).size).toBe(3);
    for (const bootId of ids) {
      expect(bootId).toMatch(/^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}\n$/);
    }
    expect(await inGuest("grep -c boot_id /proc/self/mounts; stat -c %a /proc/sys/kernel/random/boot_id")).toBe(
      "1\n444\n",
    );
  });

  it("writes nothing to its disk for that", async () => {
    // In sectors, since boot.
    const written = "sync -f /; awk '{ print $7 }' /sys/block/vda/stat";
    const before = await inGuest(written);
    await restore();
    expect(await inGuest(written)).toBe(before);
  });

  it.each([
    { port: 8_004, address: "0.0.0.0" as const },
    { port: 8_006, address: "::" as const },
  ])("ends connections with the outside at once, and none within ($address)", async ({ port, address }) => {
    await inGuest(`setsid python3 -c '${server(port, address).replaceAll("'", "")}' >/dev/null 2>&1 </dev/null &`);
    const socket = await connectTo(port);
    await once(socket, "data");
    expect(await restore()).toBeGreaterThan(0);
    if (!socket.closed) await once(socket, "close");
    expect(await readAll(await connectTo(port))).toBe("outside: Software caused connection abort, inside goes on");
  });

  it("keeps processes whose clients are of the past", async () => {
    await inGuest("mkfifo /run/go");
    const heard = inGuest("echo $$ > /run/pid; read -r line < /run/go; echo $line > /run/went");
    await untilInGuest("cat /run/pid");
    await restore();
    expect(await heard).toBe("");
    await inGuest("echo on > /run/go");
    expect(await untilInGuest("cat /run/went")).toBe("on");
  });

  it("writes back its disk when it is asked to", async () => {
    await inGuest("dd if=/dev/zero of=/tmp/dirty bs=1M count=8 2>/dev/null");
    const dirtyKib = (): Promise<string> => inGuest("awk '/^Dirty:/ { print $2 }' /proc/meminfo");
    expect(Number(await dirtyKib())).toBeGreaterThan(8_000);
    expect(await post("/sync", {})).toEqual({ status: 204, answer: "" });
    expect(Number(await dirtyKib())).toBeLessThan(1_000);
  });
});
