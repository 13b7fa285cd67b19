/** A host agent's RPC as the rest of the control plane sees it: every call has a deadline, every failure is a WrennError. */
import http from "node:http";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { deadlines, fromErrorInfo, hostAgentProto, WrennError } from "@wrenn/contract";
import type { SandboxId, TeamId, TemplateId } from "@wrenn/contract";
import { parseHostAddress } from "./host-address.ts";

export interface CreateOnHost {
  readonly sandboxId: SandboxId;
  readonly teamId: TeamId;
  readonly templateTeamId: TeamId;
  readonly templateId: TemplateId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  readonly envs: Record<string, string>;
  readonly accessToken: string;
}

/** Told of every sandbox that a host has created. */
export type OnCreated = (sandbox: hostAgentProto.Sandbox) => void;

export class HostClient {
  readonly address: string;
  readonly #agent = new http.Agent({ keepAlive: true, maxFreeSockets: 4 });
  readonly #rpc: Client<typeof hostAgentProto.HostAgent>;
  readonly #onCreated: OnCreated;
  /** When what the agent says of its host was last written down; long ago when it has not answered since. */
  #recordedAt = -Infinity;

  constructor(address: string, onCreated: OnCreated = () => undefined) {
    this.address = address;
    this.#onCreated = onCreated;
    const target = parseHostAddress(address);
    const authority = target.kind === "unix" ? "host-agent" : `${bracketed(target.host)}:${target.port}`;
    this.#rpc = createClient(
      hostAgentProto.HostAgent,
      createConnectTransport({
        httpVersion: "1.1",
        baseUrl: `http://${authority}`,
        nodeOptions: { agent: this.#agent, ...(target.kind === "unix" ? { socketPath: target.path } : {}) },
        acceptCompression: [],
      }),
    );
  }

  async getHost(timeoutMs: number = deadlines.hostAgentCall): Promise<hostAgentProto.GetHostResponse> {
    return this.#call(this.#rpc.getHost({}, { timeoutMs }));
  }

  noteRecorded(): void {
    this.#recordedAt = performance.now();
  }

  /** Whether what the agent says of its host was written down within so many milliseconds, and every call since was answered. */
  wasRecordedWithin(milliseconds: number): boolean {
    return performance.now() - this.#recordedAt <= milliseconds;
  }

  async listSandboxes(): Promise<hostAgentProto.Sandbox[]> {
    return (await this.#call(this.#rpc.listSandboxes({}, { timeoutMs: deadlines.hostAgentCall }))).sandboxes;
  }

  /** Answers once the guest does. The engine that runs it is in the answer. */
  async createSandbox(request: CreateOnHost): Promise<hostAgentProto.Sandbox> {
    const { sandbox } = await this.#call(this.#rpc.createSandbox(request, { timeoutMs: deadlines.createSandbox }));
    if (sandbox === undefined) throw new WrennError("internal", { message: "The host agent's answer has no sandbox." });
    this.#onCreated(sandbox);
    return sandbox;
  }

  /** What a sandbox has printed on its console. */
  async readConsole(sandboxId: SandboxId, offset: number): Promise<hostAgentProto.ReadConsoleResponse> {
    const request = { sandboxId, offset: BigInt(offset) };
    return this.#call(this.#rpc.readConsole(request, { timeoutMs: deadlines.hostAgentCall }));
  }

  /** Makes sure that the host holds nothing of this sandbox: that it never did, or no longer does, is success. */
  async ensureDestroyed(sandboxId: SandboxId): Promise<void> {
    try {
      await this.#call(this.#rpc.destroySandbox({ sandboxId }, { timeoutMs: deadlines.destroySandbox }));
    } catch (error) {
      if (!(error instanceof WrennError && error.code === "sandbox_not_found")) throw error;
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #call<Answer>(call: Promise<Answer>): Promise<Answer> {
    try {
      return await call;
    } catch (error) {
      const hostError = asHostError(error);
      if (hostError.code === "host_unavailable") this.#recordedAt = -Infinity;
      throw hostError;
    }
  }
}

/** One client per address, made when first asked for. */
export class HostClients {
  readonly #clients = new Map<string, HostClient>();
  readonly #onCreated: OnCreated | undefined;

  constructor(onCreated?: OnCreated) {
    this.#onCreated = onCreated;
  }

  get(address: string): HostClient {
    const known = this.#clients.get(address);
    if (known !== undefined) return known;
    const client = new HostClient(address, this.#onCreated);
    this.#clients.set(address, client);
    return client;
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }
}

/** What the agent said, where it said something; else it did not answer, or not as an agent of this version does. */
function asHostError(error: unknown): WrennError {
  const connectError = ConnectError.from(error);
  const [info] = connectError.findDetails(hostAgentProto.ErrorInfoSchema);
  if (info !== undefined) return fromErrorInfo(info, connectError);
  return new WrennError("host_unavailable", {
    ...(connectError.code === Code.DeadlineExceeded ? { message: "The host agent did not answer in time." } : {}),
    cause: connectError,
  });
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
