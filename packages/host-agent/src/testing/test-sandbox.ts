/** For tests: one sandbox of a host agent, as its RPC and its guest show it. */
import { hostAgentProto, newId, platformTeamId, type SandboxId } from "@wrenn/contract";
import { pollUntil, type ProcessIdentity, signalProcess } from "@wrenn/system";
import { execute } from "./guest.ts";
import { engineOf, type TestHostAgent, testToken } from "./host-agent-process.ts";

type Overrides = Parameters<TestHostAgent["request"]>[0];

/** What names a snapshot. */
export type TemplateName = Pick<hostAgentProto.Snapshot, "templateTeamId" | "templateId">;

export class TestSandbox {
  readonly agent: TestHostAgent;
  readonly id: SandboxId;
  /** Runs a shell command as root; resolves with its output. */
  readonly run = async (command: string): Promise<string> =>
    execute(this.agent.layout.hostAgentSocket, this.id, command);

  constructor(agent: TestHostAgent, id: SandboxId = newId("sandbox")) {
    this.agent = agent;
    this.id = id;
  }

  static async create(agent: TestHostAgent, overrides: Overrides = {}): Promise<TestSandbox> {
    const sandbox = new TestSandbox(agent);
    await sandbox.create(overrides);
    return sandbox;
  }

  /** One that is started from a snapshot. */
  static async copyOf(agent: TestHostAgent, { templateTeamId, templateId }: TemplateName): Promise<TestSandbox> {
    return TestSandbox.create(agent, { templateTeamId, templateId, templateAccessToken: testToken });
  }

  async create(overrides: Overrides = {}): Promise<void> {
    await this.agent.client.createSandbox(this.agent.request({ ...overrides, sandboxId: this.id }));
  }

  async describe(): Promise<hostAgentProto.Sandbox> {
    const { sandbox } = await this.agent.client.getSandbox({ sandboxId: this.id });
    if (sandbox === undefined) throw new Error("an answer without a sandbox");
    return sandbox;
  }

  async pause(): Promise<void> {
    await this.agent.client.pauseSandbox({ sandboxId: this.id });
  }

  async resume(): Promise<void> {
    await this.agent.client.resumeSandbox({ sandboxId: this.id, accessToken: testToken });
  }

  async recover(source: hostAgentProto.RecoverySource): Promise<void> {
    await this.agent.client.recoverSandbox({ sandboxId: this.id, source, accessToken: testToken });
  }

  /** Copies of it, as many as there are names for them. */
  async fork(copies: readonly TestSandbox[]): Promise<void> {
    const forks = copies.map(({ id }) => ({ sandboxId: id, accessToken: testToken }));
    await this.agent.client.forkSandbox({ sandboxId: this.id, accessToken: testToken, forks });
  }

  async keep(template = newTemplate()): Promise<hostAgentProto.Snapshot> {
    const { snapshot } = await this.agent.client.createSnapshot({ sandboxId: this.id, ...template });
    if (snapshot === undefined) throw new Error("an answer without a snapshot");
    return snapshot;
  }

  async destroy(): Promise<void> {
    await this.agent.client.destroySandbox({ sandboxId: this.id });
  }

  async engine(): Promise<ProcessIdentity> {
    return engineOf(this.agent, this.id);
  }

  /** Kills its engine, and waits until the host agent knows. */
  async loseVm(): Promise<void> {
    await signalProcess(await this.engine(), "SIGKILL");
    const isDead = async (): Promise<true | null> =>
      (await this.describe()).state === hostAgentProto.SandboxState.DEAD ? true : null;
    if ((await pollUntil(isDead, { timeoutMs: 20_000 })) === null) throw new Error(`${this.id} does not die`);
  }
}

export function newTemplate(): TemplateName {
  return { templateTeamId: platformTeamId, templateId: newId("template") };
}

export async function forget(agent: TestHostAgent, { templateTeamId, templateId }: TemplateName): Promise<void> {
  await agent.client.deleteSnapshot({ templateTeamId, templateId });
}
