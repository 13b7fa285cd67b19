/** What a simulated host agent holds and does: sandboxes and snapshots that change their state when they are told to, and nothing else. */
import { create } from "@bufbuild/protobuf";
import { timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { hostAgentProto, newId, WrennError } from "@wrenn/contract";
import type { ErrorCode, RecoverySource } from "@wrenn/contract";

const { SandboxState, SandboxSchema, SnapshotSchema, DeathSchema } = hostAgentProto;

/** What the agent can be asked to do with a sandbox that there is. */
type SimulatedOperation = "pause" | "resume" | "recover" | "fork" | "snapshot";

const during: Readonly<Partial<Record<SimulatedOperation, hostAgentProto.SandboxState>>> = {
  pause: SandboxState.PAUSING,
  resume: SandboxState.RESUMING,
  snapshot: SandboxState.SNAPSHOTTING,
  fork: SandboxState.SNAPSHOTTING,
};

type Hook = (id: string) => Promise<void>;
const nothing = async (): Promise<void> => undefined;

/** What a real host says of the machine that its sandboxes run on. */
export interface SimulatedMachine {
  engine: string;
  engineVersion: string;
  engineReason: string;
  cpu: string;
  diskFormat: string;
}

export abstract class SimulatedSandboxes {
  machine: SimulatedMachine = {
    engine: "qemu-tcg",
    engineVersion: "7.2.22",
    engineReason: "This machine is simulated.",
    cpu: "max",
    diskFormat: "qcow2",
  };
  readonly sandboxes = new Map<string, hostAgentProto.Sandbox>();
  /** What sandboxes have printed on their consoles, by id. One byte a character. */
  readonly consoles = new Map<string, string>();
  /** Every request to create, in order. */
  readonly creates: hostAgentProto.CreateSandboxRequest[] = [];
  readonly destroys: string[] = [];
  /** By the id of their template. */
  readonly snapshots = new Map<string, hostAgentProto.Snapshot>();
  /** All that was asked for, in order, before it was done: `pause <id>` and so on. */
  readonly asked: string[] = [];
  /** Every request to resume, recover or fork, in order. */
  readonly resumes: hostAgentProto.ResumeSandboxRequest[] = [];
  readonly recoveries: hostAgentProto.RecoverSandboxRequest[] = [];
  readonly forks: hostAgentProto.ForkSandboxRequest[] = [];
  /** What each operation says of its steps. */
  steps: { step: string; milliseconds: number }[] = [];
  /**
   * Called before something is carried out, with the sandbox's or template's id (of a fork: of each copy); may wait, and may throw: then
   * it has failed.
   */
  beforeCreate: Hook = nothing;
  beforeDestroy: Hook = nothing;
  beforePause: Hook = nothing;
  beforeResume: Hook = nothing;
  beforeRecover: Hook = nothing;
  beforeFork: Hook = nothing;
  beforeSnapshot: Hook = nothing;
  beforeDeleteSnapshot: Hook = nothing;
  beforeList: () => Promise<void> = nothing;
  /** Called when something has been carried out, before that is answered: a host that breaks off here has done it. */
  beforeAnswer: Hook = nothing;

  /** Nothing in the sandbox answers any more. */
  protected abstract breakTunnels(id: string): void;

  /** Does everything at once, and well, from now on. */
  behave(): void {
    this.beforeCreate = this.beforeDestroy = this.beforePause = this.beforeResume = this.beforeRecover = nothing;
    this.beforeFork = this.beforeSnapshot = this.beforeDeleteSnapshot = this.beforeList = this.beforeAnswer = nothing;
  }

  /** As if the VM had died: the agent keeps a tombstone, and the disk. */
  kill(id: string, code: ErrorCode, message: string, recoverable: RecoverySource[] = ["disk"]): void {
    const sandbox = this.find(id);
    sandbox.state = SandboxState.DEAD;
    sandbox.memoryBackend = "";
    sandbox.recoverable = recoverable;
    this.breakTunnels(id);
    sandbox.death = create(DeathSchema, { code, message, at: timestampNow() });
  }

  /** As if it had been made by somebody else. */
  plant(id: string, createdAt: Date, state: hostAgentProto.SandboxState = SandboxState.RUNNING): void {
    this.sandboxes.set(
      id,
      create(SandboxSchema, { sandboxId: id, state, ...this.machine, createdAt: timestampFromDate(createdAt) }),
    );
  }

  protected find(id: string): hostAgentProto.Sandbox {
    const sandbox = this.sandboxes.get(id);
    if (sandbox === undefined) throw new WrennError("sandbox_not_found");
    return sandbox;
  }

  protected async createSandbox(request: hostAgentProto.CreateSandboxRequest): Promise<hostAgentProto.Sandbox> {
    this.creates.push(request);
    const sandbox = create(SandboxSchema, {
      sandboxId: request.sandboxId,
      state: SandboxState.CREATING,
      vcpus: request.vcpus,
      memoryMib: request.memoryMib,
      diskMib: request.diskMib,
      ...this.machine,
      createdAt: timestampNow(),
      steps: this.steps,
    });
    this.sandboxes.set(request.sandboxId, sandbox);
    try {
      await this.beforeCreate(request.sandboxId);
    } catch (error) {
      this.sandboxes.delete(request.sandboxId);
      throw error;
    }
    sandbox.state = SandboxState.RUNNING;
    sandbox.memoryBackend = "file";
    await this.beforeAnswer(request.sandboxId);
    return sandbox;
  }

  /** Whatever fails leaves the sandbox in the state in which it was. */
  async #change(
    operation: SimulatedOperation,
    id: string,
    from: hostAgentProto.SandboxState,
    before: (id: string) => Promise<void>,
  ): Promise<hostAgentProto.Sandbox> {
    this.asked.push(`${operation} ${id}`);
    const sandbox = this.find(id);
    if (sandbox.state === SandboxState.DEAD && from !== SandboxState.DEAD) throw new WrennError("sandbox_died");
    if (sandbox.state !== from) throw new WrennError("sandbox_busy");
    sandbox.state = during[operation] ?? from;
    try {
      await before(id);
    } catch (error) {
      sandbox.state = from;
      throw error;
    }
    sandbox.steps = this.steps.map((step) => create(hostAgentProto.StepTimingSchema, step));
    return sandbox;
  }

  protected async pauseSandbox(id: string): Promise<hostAgentProto.Sandbox> {
    if (this.find(id).state === SandboxState.PAUSED) return this.find(id);
    const sandbox = await this.#change("pause", id, SandboxState.RUNNING, this.beforePause);
    Object.assign(sandbox, { state: SandboxState.PAUSED, memoryBackend: "", generationId: newId("generation") });
    sandbox.pausedAt = timestampNow();
    this.breakTunnels(id);
    await this.beforeAnswer(id);
    return sandbox;
  }

  protected async resumeSandbox(request: hostAgentProto.ResumeSandboxRequest): Promise<hostAgentProto.Sandbox> {
    const { sandboxId: id } = request;
    this.resumes.push(request);
    if (this.find(id).state === SandboxState.RUNNING) return this.find(id);
    const sandbox = await this.#change("resume", id, SandboxState.PAUSED, this.beforeResume);
    Object.assign(sandbox, { state: SandboxState.RUNNING, memoryBackend: "uffd" });
    await this.beforeAnswer(id);
    return sandbox;
  }

  protected async recoverSandbox(request: hostAgentProto.RecoverSandboxRequest): Promise<hostAgentProto.Sandbox> {
    const { sandboxId: id } = request;
    this.recoveries.push(request);
    const sandbox = await this.#change("recover", id, SandboxState.DEAD, this.beforeRecover);
    Object.assign(sandbox, { state: SandboxState.RUNNING, memoryBackend: "file", recoverable: [], death: undefined });
    Object.assign(sandbox, this.machine);
    await this.beforeAnswer(id);
    return sandbox;
  }

  /** Of a running or a paused one, which is afterwards what it was. */
  async #copy(
    operation: "fork" | "snapshot",
    id: string,
    before: (id: string) => Promise<void>,
  ): Promise<hostAgentProto.Sandbox> {
    const { state } = this.find(id);
    const source = await this.#change(
      operation,
      id,
      state === SandboxState.PAUSED ? SandboxState.PAUSED : SandboxState.RUNNING,
      before,
    );
    source.state = state;
    return source;
  }

  protected async forkSandbox(request: hostAgentProto.ForkSandboxRequest): Promise<hostAgentProto.Sandbox[]> {
    this.forks.push(request);
    const ids = request.forks.map(({ sandboxId }) => sandboxId);
    const source = await this.#copy("fork", request.sandboxId, async () => {
      for (const id of ids) await this.beforeFork(id);
    });
    const copies = ids.map((sandboxId) =>
      create(SandboxSchema, {
        sandboxId,
        state: SandboxState.RUNNING,
        vcpus: source.vcpus,
        memoryMib: source.memoryMib,
        diskMib: source.diskMib,
        ...this.machine,
        memoryBackend: "file",
        createdAt: timestampNow(),
        steps: this.steps,
      }),
    );
    for (const copy of copies) this.sandboxes.set(copy.sandboxId, copy);
    await this.beforeAnswer(request.sandboxId);
    return copies;
  }

  protected async takeSnapshot(request: hostAgentProto.CreateSnapshotRequest): Promise<hostAgentProto.Snapshot> {
    const { sandboxId, templateTeamId, templateId } = request;
    const source = await this.#copy("snapshot", sandboxId, this.beforeSnapshot);
    const snapshot = create(SnapshotSchema, {
      templateTeamId,
      templateId,
      generationId: newId("generation"),
      vcpus: source.vcpus,
      memoryMib: source.memoryMib,
      diskMib: source.diskMib,
      engine: source.engine,
      engineVersion: source.engineVersion,
      cpu: source.cpu,
      diskFormat: source.diskFormat,
      sizeBytes: 31_457_280n,
      createdAt: timestampNow(),
    });
    this.snapshots.set(templateId, snapshot);
    await this.beforeAnswer(templateId);
    return snapshot;
  }

  protected async destroySandbox(id: string): Promise<void> {
    await this.beforeDestroy(id);
    if (!this.sandboxes.delete(id)) throw new WrennError("sandbox_not_found");
    this.destroys.push(id);
    this.breakTunnels(id);
  }

  protected async deleteSnapshot(templateId: string): Promise<void> {
    this.asked.push(`deleteSnapshot ${templateId}`);
    await this.beforeDeleteSnapshot(templateId);
    if (!this.snapshots.delete(templateId)) throw new WrennError("snapshot_not_found");
    await this.beforeAnswer(templateId);
  }
}
