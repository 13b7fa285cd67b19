/** Stands in for a server with one sandbox whose guest does as a test says: breaks streams, panics, forgets processes. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { filesystemProto, processProto, type Sandbox, type Snapshot } from "@wrenn/contract";
import type { ConnectionOptions } from "../connection.ts";

export const sandboxId = "sb-01890000-0000-7000-8000-000000000001";
export const apiKey = `wrn_${"0".repeat(40)}`;

/** An answer; or the connection is cut; or there is none, ever. */
export type Answer = { status: number; body: unknown; headers?: Record<string, string> } | "cut" | "none";

export class ServerStandIn {
  /** What the SDK needs to know of it. */
  readonly api: ConnectionOptions;
  /** What the next requests of the API are answered; then the sandbox as it is. */
  readonly answers: Answer[] = [];
  readonly requests: { method: string; path: string; headers: Record<string, unknown>; body: string }[] = [];
  readonly sandbox: Sandbox = {
    id: sandboxId,
    team_id: "team-01890000-0000-7000-8000-000000000002",
    template: "minimal",
    status: "running",
    status_reason: null,
    vcpus: 1,
    memory_mib: 512,
    disk_mib: 5_120,
    metadata: {},
    timeout_seconds: null,
    on_timeout: "destroy",
    expires_at: null,
    host_id: null,
    engine: "qemu-tcg",
    engine_reason: null,
    disk_format: "qcow2",
    memory_backend: "file",
    recoverable: [],
    created_at: "2026-01-01T00:00:00.000Z",
    started_at: "2026-01-01T00:00:01.000Z",
    paused_at: null,
  };
  readonly snapshot: Snapshot = {
    id: "tpl-01890000-0000-7000-8000-000000000003",
    team_id: this.sandbox.team_id,
    name: "after-setup",
    sandbox_id: sandboxId,
    vcpus: 1,
    memory_mib: 512,
    disk_mib: 5_120,
    size_bytes: 31_457_280,
    host_id: null,
    engine: "qemu-tcg",
    engine_version: "7.2.22",
    cpu: null,
    disk_format: "qcow2",
    created_at: "2026-01-01T00:00:02.000Z",
  };
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    const { port } = server.address() as AddressInfo;
    this.api = { apiUrl: `http://127.0.0.1:${port}/`, apiKey };
  }

  static async start(
    processes: Partial<ServiceImpl<typeof processProto.Process>>,
    filesystem: Partial<ServiceImpl<typeof filesystemProto.Filesystem>> = {},
  ): Promise<ServerStandIn> {
    const rpc = connectNodeAdapter({
      routes: (router) => {
        router.service(processProto.Process, processes);
        router.service(filesystemProto.Filesystem, filesystem);
      },
    });
    const server = createServer((request, response) => {
      const path = request.url ?? "";
      if (/^\/(process\.Process|filesystem\.Filesystem)\//.test(path) && standIn.answers.length === 0) {
        standIn.requests.push({ method: request.method ?? "", path, headers: request.headers, body: "" });
        rpc(request, response);
        return;
      }
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const body = Buffer.concat(chunks).toString("utf8");
        standIn.requests.push({ method: request.method ?? "", path, headers: request.headers, body });
        const answer = standIn.answers.shift() ?? { status: 200, body: standIn.sandbox };
        if (answer === "cut") request.socket.destroy();
        else if (answer !== "none") {
          response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers });
          response.end(JSON.stringify(answer.body));
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const standIn = new ServerStandIn(server);
    return standIn;
  }

  /** As when the host agent is killed: every stream breaks in the middle. */
  breakConnections(): void {
    this.#server.closeAllConnections();
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
