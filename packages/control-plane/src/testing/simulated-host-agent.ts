/**
 * A host agent without virtual machines: the real RPC and the real tunnels on a real unix socket, with one real HTTP server
 * standing in for every guest. It does what it is told to, failures included, so that the control plane can be tested
 * against what no real host does on demand.
 */
import { once } from "node:events";
import { rm } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import type { Duplex } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { asWrennError, consoleLimits, guestAgentPort, hostAgentProto, toErrorInfo, WrennError } from "@wrenn/contract";
import { SimulatedGuest } from "./simulated-guest.ts";
import { SimulatedSandboxes } from "./simulated-sandboxes.ts";

const { SandboxState, ErrorInfoSchema, HostAgent } = hostAgentProto;

export class SimulatedHostAgent extends SimulatedSandboxes {
  readonly guest: SimulatedGuest;
  /** Ports of the sandboxes on which the guest listens. */
  readonly openPorts = new Set<number>([guestAgentPort, 8080]);
  /** Where a real guest agent listens on this machine; while set, it is every sandbox's. */
  realGuestAgentPort: number | undefined;
  cpuCount = 2;
  memoryMib = 8192;
  slotsReady = 3;
  /** What its engine can use; when left out, what new disks are. */
  diskFormats: string[] | undefined;
  tunnelsOpened = 0;
  readonly #socketPath: string;
  readonly #connections = new Set<net.Socket>();
  readonly #tunnels = new Map<string, Set<Duplex>>();
  #server: http.Server | undefined;

  private constructor(socketPath: string, guest: SimulatedGuest) {
    super();
    this.#socketPath = socketPath;
    this.guest = guest;
  }

  static async start(socketPath: string): Promise<SimulatedHostAgent> {
    const agent = new SimulatedHostAgent(socketPath, await SimulatedGuest.start());
    await agent.resume();
    return agent;
  }

  async stop(): Promise<void> {
    await this.pause();
    this.guest.stop();
  }

  /** The agent is away, its sandboxes are not: as after kill -9. */
  async pause(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = once(server, "close");
    server.close();
    for (const socket of this.#connections) socket.destroy();
    await closed;
    await rm(this.#socketPath, { force: true });
  }

  async resume(): Promise<void> {
    const server = http.createServer(connectNodeAdapter({ routes: (router) => this.#routes(router) }));
    server.on("connection", (socket) => {
      this.#connections.add(socket);
      socket.once("close", () => this.#connections.delete(socket));
    });
    server.on("connect", (request, socket, head) => {
      this.#tunnel(request.url ?? "", socket, head);
    });
    server.listen(this.#socketPath);
    await once(server, "listening");
    this.#server = server;
  }

  #routes(router: ConnectRouter): void {
    router.service(HostAgent, {
      getHost: () => ({
        agentVersion: "simulated",
        cpuCount: this.cpuCount,
        memoryTotalMib: this.memoryMib,
        memoryAvailableMib: this.memoryMib,
        ...this.machine,
        diskReason: "This machine is simulated.",
        diskFormats: this.diskFormats ?? [this.machine.diskFormat],
        memoryBackends: ["file", "uffd"],
        slotsReady: this.slotsReady,
        slotsInUse: this.sandboxes.size,
      }),
      createSandbox: async (request) => answering(async () => ({ sandbox: await this.createSandbox(request) })),
      destroySandbox: async ({ sandboxId }) =>
        answering(async () => {
          await this.destroySandbox(sandboxId);
          return {};
        }),
      pauseSandbox: async ({ sandboxId }) => answering(async () => ({ sandbox: await this.pauseSandbox(sandboxId) })),
      resumeSandbox: async (request) => answering(async () => ({ sandbox: await this.resumeSandbox(request) })),
      recoverSandbox: async (request) => answering(async () => ({ sandbox: await this.recoverSandbox(request) })),
      forkSandbox: async (request) => answering(async () => ({ sandboxes: await this.forkSandbox(request) })),
      createSnapshot: async (request) => answering(async () => ({ snapshot: await this.takeSnapshot(request) })),
      deleteSnapshot: async ({ templateId }) =>
        answering(async () => {
          await this.deleteSnapshot(templateId);
          return {};
        }),
      listSnapshots: async () => answering(async () => ({ snapshots: [...this.snapshots.values()] })),
      getSandbox: async ({ sandboxId }) => answering(async () => ({ sandbox: this.find(sandboxId) })),
      listSandboxes: async () =>
        answering(async () => {
          await this.beforeList();
          return { sandboxes: [...this.sandboxes.values()] };
        }),
      readConsole: async ({ sandboxId, offset }) => answering(async () => this.#readConsole(sandboxId, Number(offset))),
    });
  }

  #readConsole(id: string, offset: number): { text: string; offset: bigint; nextOffset: bigint } {
    this.find(id);
    const printed = this.consoles.get(id) ?? "";
    const from = Math.min(offset, printed.length);
    const text = printed.slice(from, from + consoleLimits.answerBytes);
    return { text, offset: BigInt(from), nextOffset: BigInt(from + text.length) };
  }

  protected breakTunnels(id: string): void {
    for (const tunnel of this.#tunnels.get(id) ?? []) tunnel.destroy();
    this.#tunnels.delete(id);
  }

  #tunnel(authority: string, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const [id = "", port = ""] = authority.split(":");
    const sandbox = this.sandboxes.get(id);
    if (sandbox === undefined) return refuse(socket, new WrennError("sandbox_not_found"));
    if (sandbox.state === SandboxState.PAUSED) return refuse(socket, new WrennError("sandbox_paused"));
    if (sandbox.state !== SandboxState.RUNNING && sandbox.state !== SandboxState.SNAPSHOTTING) {
      return refuse(socket, new WrennError("sandbox_state_conflict"));
    }
    if (!this.openPorts.has(Number(port))) return refuse(socket, new WrennError("port_closed"));
    const real = Number(port) === guestAgentPort ? this.realGuestAgentPort : undefined;
    const guest = net.connect(real ?? this.guest.port, "127.0.0.1", () => {
      this.tunnelsOpened += 1;
      const ofSandbox = this.#tunnels.get(id) ?? new Set();
      this.#tunnels.set(id, ofSandbox.add(socket));
      socket.once("close", () => ofSandbox.delete(socket));
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      if (head.length > 0) guest.write(head);
      guest.pipe(socket).pipe(guest);
    });
    guest.on("error", () => socket.destroy());
    guest.on("close", () => socket.destroy());
    socket.on("close", () => guest.destroy());
  }
}

function refuse(socket: Duplex, error: WrennError): void {
  const body = JSON.stringify(error.toBody());
  socket.end(
    `HTTP/1.1 ${error.status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
}

async function answering<Answer>(work: () => Promise<Answer>): Promise<Answer> {
  try {
    return await work();
  } catch (thrown) {
    const error = asWrennError(thrown);
    const value = create(ErrorInfoSchema, toErrorInfo(error));
    throw new ConnectError(error.message, Code.Internal, undefined, [{ desc: ErrorInfoSchema, value }]);
  }
}
