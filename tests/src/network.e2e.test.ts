/** What sandboxes can reach of the world, and what not. */
import { networkInterfaces } from "node:os";
import { createServer, type Server } from "node:net";
import { instanceTag } from "@wrenn/host-agent";
import { run } from "@wrenn/system";
import type { Sandbox } from "@wrenn/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { shell } from "./harness/guest.ts";
import { OutsideNetwork, outsideAddress } from "./harness/outside-network.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();
const neighbourPort = 8_000;

let outside: OutsideNetwork;
let hostListener: Server;
let hostPort: number;
let first: Sandbox;
let second: Sandbox;

beforeAll(async () => {
  outside = await OutsideNetwork.start();
  hostListener = createServer((socket) => socket.end("from the host"));
  await new Promise<void>((resolve) => hostListener.listen(0, "0.0.0.0", resolve));
  const address = hostListener.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  hostPort = address.port;
  first = await server().createSandbox();
  second = await server().createSandbox();
  await shell(second, `nohup python3 -m http.server ${neighbourPort} >/dev/null 2>&1 &`);
});

afterAll(async () => {
  await first.destroy();
  await second.destroy();
  hostListener.close();
  await outside.stop();
});

/** Which of these `address:port` a sandbox can connect to over TCP. */
async function reachable(sandbox: Sandbox, targets: readonly string[]): Promise<string[]> {
  const script = [
    "import socket, sys, concurrent.futures as c",
    "def attempt(target):",
    "    host, port = target.rsplit(':', 1)",
    "    try: socket.create_connection((host, int(port)), 3).close(); return target",
    "    except OSError: return None",
    "print('\\n'.join(filter(None, c.ThreadPoolExecutor(32).map(attempt, sys.argv[1:]))))",
  ].join("\n");
  const { exitCode, stdout } = await sandbox.commands.run(["python3", "-c", script, ...targets]);
  expect(exitCode).toBe(0);
  return stdout.split("\n").filter(Boolean);
}

/** Every IPv4 address of the host, and of this server's slots as seen inside their namespaces. */
async function hostAddresses(): Promise<string[]> {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family, internal }) => family === "IPv4" && !internal)
    .map(({ address }) => address);
}

async function slotAddresses(): Promise<string[]> {
  const tag = instanceTag(server().layout.root);
  const { stdout } = await run("ip", ["netns", "list"]);
  const namespaces = stdout.split("\n").flatMap((line) => line.split(" ")[0] ?? []);
  const addresses = await Promise.all(
    namespaces
      .filter((name) => name.includes(tag))
      .map(async (name) => (await run("ip", ["-n", name, "-4", "-o", "addr"])).stdout.matchAll(/inet ([\d.]+)/g)),
  );
  return addresses.flatMap((found) => [...found].map(([, address]) => address ?? ""));
}

describe("two sandboxes", () => {
  it("reach a server outside", async () => {
    for (const sandbox of [first, second]) {
      const target = `${outsideAddress}:${outside.port}`;
      expect(await reachable(sandbox, [target])).toEqual([target]);
    }
  });

  it("do not reach each other", async () => {
    // The neighbour does listen: it is reached through the data plane.
    expect((await second.fetch(neighbourPort, "/")).status).toBe(200);
    const slots = (await slotAddresses()).filter((address) => !address.startsWith("169.254."));
    expect(slots.length).toBeGreaterThanOrEqual(2);
    const targets = slots.flatMap((address) => [`${address}:${neighbourPort}`, `${address}:49983`]);
    expect(await reachable(first, targets)).toEqual([]);
  });

  it("do not reach the host, on any of its addresses", async () => {
    const addresses = await hostAddresses();
    const controlPlanePort = Number(new URL(server().url).port);
    const targets = [...addresses, "169.254.0.22"].flatMap((address) => [
      `${address}:${hostPort}`,
      `${address}:${controlPlanePort}`,
      `${address}:22`,
    ]);
    expect(targets.length).toBeGreaterThan(3);
    expect(await reachable(first, targets)).toEqual([]);
  });

  it("do not reach private, link-local and metadata addresses", async () => {
    const addresses = [
      "10.0.0.1",
      "10.242.0.1",
      "172.16.0.1",
      "192.168.0.1",
      "100.64.0.1",
      "169.254.169.254",
      "198.18.0.1",
    ];
    const targets = addresses.flatMap((address) => [`${address}:80`, `${address}:443`]);
    expect(await reachable(first, targets)).toEqual([]);
  });

  it("cannot be mistaken for one another: each has a name and a machine id of its own", async () => {
    const [one, two] = await Promise.all(
      [first, second].map((sandbox) => shell(sandbox, "hostname; cat /etc/machine-id")),
    );
    expect(one?.stdout).not.toBe(two?.stdout);
    expect(one?.stdout.split("\n")[1]).toMatch(/^[0-9a-f]{32}$/);
  });
});
