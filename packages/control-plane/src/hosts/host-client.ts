/** A host agent's RPC as the rest of the control plane sees it: every call has a deadline, every failure is a WrennError. */
import http from "node:http";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { deadlines, fromErrorInfo, hostAgentProto, WrennError } from "@wrenn/contract";
import type { ErrorCode, RecoverySource, SandboxId, TeamId, TemplateId } from "@wrenn/contract";
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
  /** What the frozen guest agent of a snapshot demands; empty for other templates. */
  readonly templateAccessToken: string;
}

/** What hosts time step by step. */
export const timedOperations = ["create", "pause", "resume", "fork", "recover"] as const;
export type TimedOperation = (typeof timedOperations)[number];

/** Told of every sandbox that a host has brought into another state, with the steps that it took, and of the host's address. */
export type OnTimed = (operation: TimedOperation, sandbox: hostAgentProto.Sandbox, address: string) => void;

const sources = {
  disk: hostAgentProto.RecoverySource.DISK,
  last_pause: hostAgentProto.RecoverySource.LAST_PAUSE,
} as const satisfies Record<RecoverySource, hostAgentProto.RecoverySource>;

export class HostClient {
  readonly address: string;
  readonly #agent = new http.Agent({ keepAlive: true, maxFreeSockets: 4 });
  readonly #rpc: Client<typeof hostAgentProto.HostAgent>;
  readonly #onTimed: OnTimed;
  /** What the agent has said of its host, or is being asked, and when it was asked. Null when it has not answered a call since. */
  #facts: { readonly answer: Promise<hostAgentProto.GetHostResponse>; readonly askedAt: number } | null = null;

  constructor(address: string, onTimed: OnTimed = () => undefined) {
    this.address = address;
    this.#onTimed = onTimed;
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

  /** The same, believed if it was asked for within so many milliseconds and every call since was answered. Callers who miss together ask once. */
  async recentFacts(withinMs: number): Promise<hostAgentProto.GetHostResponse> {
    const now = performance.now();
    if (this.#facts !== null && now - this.#facts.askedAt <= withinMs) return this.#facts.answer;
    const asked = { answer: this.getHost(), askedAt: now };
    this.#facts = asked;
    try {
      return await asked.answer;
    } catch (error) {
      if (this.#facts === asked) this.#facts = null;
      throw error;
    }
  }

  async listSandboxes(): Promise<hostAgentProto.Sandbox[]> {
    return (await this.#call(this.#rpc.listSandboxes({}, { timeoutMs: deadlines.hostAgentCall }))).sandboxes;
  }

  /** Answers once the guest does. The engine that runs it is in the answer. */
  async createSandbox(request: CreateOnHost): Promise<hostAgentProto.Sandbox> {
    return this.#timed("create", this.#rpc.createSandbox(request, { timeoutMs: deadlines.createSandbox }));
  }

  /** Answers once the frozen state is durable and all else is freed. */
  async pauseSandbox(sandboxId: SandboxId): Promise<hostAgentProto.Sandbox> {
    return this.#timed("pause", this.#rpc.pauseSandbox({ sandboxId }, { timeoutMs: deadlines.pauseSandbox }));
  }

  /** Answers once the guest does. */
  async resumeSandbox(sandboxId: SandboxId, accessToken: string): Promise<hostAgentProto.Sandbox> {
    const request = { sandboxId, accessToken };
    return this.#timed("resume", this.#rpc.resumeSandbox(request, { timeoutMs: deadlines.resumeSandbox }));
  }

  /** Answers once the guest does. */
  async recoverSandbox(
    sandboxId: SandboxId,
    from: RecoverySource,
    accessToken: string,
  ): Promise<hostAgentProto.Sandbox> {
    const request = { sandboxId, source: sources[from], accessToken };
    return this.#timed("recover", this.#rpc.recoverSandbox(request, { timeoutMs: deadlines.recoverSandbox }));
  }

  /** Answers once all copies run. */
  async forkSandbox(
    sandboxId: SandboxId,
    accessToken: string,
    forks: readonly { readonly sandboxId: SandboxId; readonly accessToken: string }[],
  ): Promise<hostAgentProto.Sandbox[]> {
    const request = { sandboxId, accessToken, forks: [...forks] };
    const { sandboxes } = await this.#call(this.#rpc.forkSandbox(request, { timeoutMs: deadlines.forkSandbox }));
    for (const sandbox of sandboxes) this.#onTimed("fork", sandbox, this.address);
    return sandboxes;
  }

  /** Answers once the snapshot is durable. */
  async createSnapshot(
    sandboxId: SandboxId,
    template: { readonly teamId: TeamId; readonly id: TemplateId },
  ): Promise<hostAgentProto.Snapshot> {
    const request = { sandboxId, templateTeamId: template.teamId, templateId: template.id };
    const { snapshot } = await this.#call(this.#rpc.createSnapshot(request, { timeoutMs: deadlines.snapshotSandbox }));
    if (snapshot === undefined) throw incomplete("snapshot");
    return snapshot;
  }

  /** Makes sure that the host has no such snapshot: that it never did, or no longer does, is success. */
  async ensureSnapshotDeleted(templateTeamId: TeamId, templateId: TemplateId): Promise<void> {
    const request = { templateTeamId, templateId };
    await unless(
      "snapshot_not_found",
      this.#call(this.#rpc.deleteSnapshot(request, { timeoutMs: deadlines.deleteSnapshot })),
    );
  }

  async listSnapshots(): Promise<hostAgentProto.Snapshot[]> {
    return (await this.#call(this.#rpc.listSnapshots({}, { timeoutMs: deadlines.hostAgentCall }))).snapshots;
  }

  /** What a sandbox has printed on its console. */
  async readConsole(sandboxId: SandboxId, offset: number): Promise<hostAgentProto.ReadConsoleResponse> {
    const request = { sandboxId, offset: BigInt(offset) };
    return this.#call(this.#rpc.readConsole(request, { timeoutMs: deadlines.hostAgentCall }));
  }

  /** Makes sure that the host holds nothing of this sandbox: that it never did, or no longer does, is success. */
  async ensureDestroyed(sandboxId: SandboxId): Promise<void> {
    await unless(
      "sandbox_not_found",
      this.#call(this.#rpc.destroySandbox({ sandboxId }, { timeoutMs: deadlines.destroySandbox })),
    );
  }

  close(): void {
    this.#agent.destroy();
  }

  async #timed(
    operation: TimedOperation,
    call: Promise<{ readonly sandbox?: hostAgentProto.Sandbox | undefined }>,
  ): Promise<hostAgentProto.Sandbox> {
    const { sandbox } = await this.#call(call);
    if (sandbox === undefined) throw incomplete("sandbox");
    this.#onTimed(operation, sandbox, this.address);
    return sandbox;
  }

  async #call<Answer>(call: Promise<Answer>): Promise<Answer> {
    try {
      return await call;
    } catch (error) {
      const hostError = asHostError(error);
      if (hostError.code === "host_unavailable") this.#facts = null;
      throw hostError;
    }
  }
}

/** One client per address, made when first asked for. */
export class HostClients {
  readonly #clients = new Map<string, HostClient>();
  readonly #onTimed: OnTimed | undefined;

  constructor(onTimed?: OnTimed) {
    this.#onTimed = onTimed;
  }

  get(address: string): HostClient {
    const known = this.#clients.get(address);
    if (known !== undefined) return known;
    const client = new HostClient(address, this.#onTimed);
    this.#clients.set(address, client);
    return client;
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }
}

/** That there is no such thing is what was asked for. */
async function unless(code: ErrorCode, call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof WrennError && error.code === code)) throw error;
  }
}

function incomplete(what: string): WrennError {
  return new WrennError("internal", { message: `The host agent's answer has no ${what}.` });
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
