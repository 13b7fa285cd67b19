/** For tests: one occupied sandbox on a host agent that meets faults, brought to the state that an operation begins in. */
import { readdir } from "node:fs/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { hostAgentProto, newId, parseUuid, platformTeamId } from "@wrenn/contract";
import { pollUntil, readJson, run, signalProcess } from "@wrenn/system";
import { FaultyAgent } from "./faults.ts";
import {
  engineOf,
  type HostAgentClient,
  type PrepareOptions,
  type TestHostAgent,
  testToken,
} from "./host-agent-process.ts";
import { codeOf } from "./interruption.ts";
import { type Moment, OccupiedGuest } from "./occupied-guest.ts";

const { SandboxState, RecoverySource } = hostAgentProto;

export type State = "running" | "paused" | "dead";

export type Template = { readonly templateTeamId: string; readonly templateId: string };

const patienceMs = 20_000;

export class Stage {
  readonly faulty: FaultyAgent;
  #guest: OccupiedGuest | null = null;
  #moment: Moment | null = null;

  private constructor(faulty: FaultyAgent) {
    this.faulty = faulty;
  }

  static async open(environment: NodeJS.ProcessEnv = {}, options: PrepareOptions = {}): Promise<Stage> {
    return new Stage(await FaultyAgent.start(environment, options));
  }

  get agent(): TestHostAgent {
    return this.faulty.agent;
  }

  get client(): HostAgentClient {
    return this.agent.client;
  }

  get id(): string {
    if (this.#guest === null) throw new Error("nobody is on the stage");
    return this.#guest.id;
  }

  /** The occupied sandbox in this state, its present moment marked. One that is gone is made anew. */
  async bring(state: State): Promise<void> {
    const present = this.#guest === null ? null : await this.stateOf(this.id);
    if (present === null) {
      const request = this.agent.request();
      await this.client.createSandbox(request);
      this.#guest = await OccupiedGuest.occupy(this.agent.layout.hostAgentSocket, request.sandboxId);
      await this.pause();
      await this.resume();
    } else if (present === SandboxState.PAUSED) {
      await this.resume();
    } else if (present === SandboxState.DEAD) {
      await this.recover(RecoverySource.LAST_PAUSE);
    }
    this.#moment = (await this.#guest?.mark()) ?? null;
    if (state === "running") return;
    await this.pause();
    if (state === "paused") return;
    await this.resume();
    await this.end();
  }

  /** The same, of a new sandbox: the memory of one that was paused many times is folded into one layer, and served by nobody. */
  async bringNew(state: State): Promise<void> {
    if (this.#guest !== null && (await this.stateOf(this.id)) !== null) await this.destroy();
    await this.bring(state);
  }

  async pause(): Promise<void> {
    await this.client.pauseSandbox({ sandboxId: this.id });
  }

  async resume(): Promise<void> {
    await this.client.resumeSandbox({ sandboxId: this.id, accessToken: testToken });
  }

  async recover(source: hostAgentProto.RecoverySource): Promise<void> {
    await this.client.recoverSandbox({ sandboxId: this.id, source, accessToken: testToken });
  }

  async destroy(id = this.id): Promise<void> {
    await this.client.destroySandbox({ sandboxId: id });
  }

  /** @returns the copy's id */
  async fork(sandboxId: string = newId("sandbox")): Promise<string> {
    const forks = [{ sandboxId, accessToken: testToken }];
    await this.client.forkSandbox({ sandboxId: this.id, accessToken: testToken, forks });
    return sandboxId;
  }

  async snapshot(template = newTemplate()): Promise<Template> {
    await this.client.createSnapshot({ sandboxId: this.id, ...template });
    return template;
  }

  /** Ends the VM as no host agent would, and waits until that is written down and what it held is freed. */
  async end(): Promise<void> {
    await signalProcess(await engineOf(this.agent, this.id), "SIGKILL");
    const look = async (): Promise<true | null> => ((await this.stateOf(this.id)) === SandboxState.DEAD ? true : null);
    if ((await pollUntil(look, { timeoutMs: patienceMs })) === null) throw new Error("it does not die");
    // Who asks for a dead one waits for its end to be dealt with.
    try {
      await this.resume();
    } catch (error) {
      if (codeOf(error) !== "sandbox_died") throw error;
    }
  }

  async stateOf(id: string): Promise<hostAgentProto.SandboxState | null> {
    try {
      return (await this.client.getSandbox({ sandboxId: id })).sandbox?.state ?? null;
    } catch (error) {
      if (error instanceof ConnectError && error.code === Code.NotFound) return null;
      throw error;
    }
  }

  /** What a sandbox has lost of the marked moment; a paused one is resumed to see it. */
  async losses(id = this.id): Promise<string[]> {
    const state = await this.stateOf(id);
    if (state === SandboxState.PAUSED) await this.client.resumeSandbox({ sandboxId: id, accessToken: testToken });
    else if (state !== SandboxState.RUNNING) return [`it is ${state === null ? "gone" : SandboxState[state]}`];
    if (this.#moment === null) return ["nothing was marked"];
    return OccupiedGuest.known(this.agent.layout.hostAgentSocket, id).losses(this.#moment);
  }

  /** What of the disk a sandbox that was booted from it has lost. */
  async diskLosses(): Promise<string[]> {
    const mark = await this.#guest?.run("sync; cat /root/mark");
    return mark === `${this.#moment?.mark}\n` ? [] : [`the disk is of another moment: ${mark}`];
  }

  /** Makes a sandbox of a template, and says what it has lost of the marked moment. */
  async lossesOfTemplate(template: Template): Promise<string[]> {
    const request = this.agent.request({ ...template, templateAccessToken: testToken });
    await this.client.createSandbox(request);
    const losses = await this.losses(request.sandboxId);
    await this.destroy(request.sandboxId);
    return losses;
  }

  async templates(): Promise<string[]> {
    return (await this.client.listSnapshots({})).snapshots.map(({ templateId }) => templateId);
  }

  /** Destroys everything but the golden snapshots. */
  async clear(): Promise<void> {
    const { sandboxes } = await this.client.listSandboxes({});
    for (const { sandboxId } of sandboxes) await this.destroy(sandboxId);
    const { snapshots } = await this.client.listSnapshots({});
    for (const { templateTeamId, templateId } of snapshots) {
      await this.client.deleteSnapshot({ templateTeamId, templateId });
    }
    this.#guest = null;
  }

  /** What is there although no sandbox that there is needs it, once it has had the time to go. */
  async leaks(): Promise<string[]> {
    let leaks: string[] = [];
    const look = async (): Promise<true | null> => {
      leaks = await this.#look();
      return leaks.length === 0 ? true : null;
    };
    await pollUntil(look, { timeoutMs: patienceMs, intervalMs: 200 });
    return leaks;
  }

  async #look(): Promise<string[]> {
    const { sandboxes } = await this.client.listSandboxes({});
    const running = sandboxes.filter(({ state }) => state === SandboxState.RUNNING);
    const traces = await this.agent.traces();
    const kept = await this.#keptOnDisk();
    return [
      ...beyond(
        "directory",
        traces.directories,
        sandboxes.map(({ sandboxId }) => sandboxId),
      ),
      ...beyond(
        "cgroup",
        traces.cgroups.map((name) => name.split("/").at(-1) ?? ""),
        running.map(({ sandboxId }) => sandboxId),
      ),
      ...traces.blockDevices
        .filter((name) => !running.some(({ sandboxId }) => name.includes(sandboxId)))
        // What disks share is there as long as one of them is.
        .filter((name) => running.length === 0 || /sandbox/.test(name))
        .map((name) => `block device ${name}`),
      ...(traces.engines.length > running.length ? [`${traces.engines.length} engines`] : []),
      ...beyond("generation", await namesIn(this.agent.layout.generations), kept.generations),
      ...beyond("layer", await namesIn(this.agent.layout.layers), kept.layers),
      ...(await this.#strayProcesses(running.length)),
    ];
  }

  /** What golden snapshots, and the journals of the sandboxes that there are, need. */
  async #keptOnDisk(): Promise<{ generations: string[]; layers: string[] }> {
    const { layout } = this.agent;
    const roots = [
      ...(await namesIn(layout.golden)).map((name) => `${layout.golden}/${name}`),
      ...(await namesIn(layout.sandboxes)).map((name) => `${layout.sandboxes}/${name}/journal.json`),
    ];
    const named = new Set<string>();
    const uuids = async (file: string): Promise<string[]> =>
      JSON.stringify(await readJson(file)).match(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g) ?? [];
    for (const file of roots) for (const id of await uuids(file)) named.add(id);
    const generations = (await namesIn(layout.generations)).filter((id) => named.has(id));
    for (const id of generations) {
      for (const layer of await uuids(layout.generation(parseUuid("generation", id)).manifest)) named.add(layer);
    }
    return { generations, layers: [...named] };
  }

  /** Programs of this directory besides the host agent, its engines and their pagers. */
  async #strayProcesses(running: number): Promise<string[]> {
    const { stdout } = await run("ps", ["-eo", "pid,args"]);
    const lines = stdout.split("\n").filter((line) => line.includes(`${this.agent.layout.root}/`));
    const pagers = lines.filter((line) => line.includes("wrenn-pager serve"));
    const others = lines.filter((line) => /wrenn-pager (?!serve)|qemu-img/.test(line));
    return [...others, ...(pagers.length > running ? pagers : [])];
  }
}

export function newTemplate(): Template {
  return { templateTeamId: platformTeamId, templateId: newId("template") };
}

function beyond(what: string, found: readonly string[], known: readonly string[]): string[] {
  return found.filter((name) => !known.includes(name)).map((name) => `${what} ${name}`);
}

async function namesIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => !name.startsWith("."));
}
