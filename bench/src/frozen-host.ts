/** A host agent under measurement, driven by its calls and tunnels, and the golden snapshot that its sandboxes are restored from. */
import { mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { newId, parseUuid, type SandboxId } from "@wrenn/contract";
import { engineOf, execute, TestHostAgent, testToken } from "@wrenn/host-agent/testing";
import { type Layout, pollUntil, readJson, run } from "@wrenn/system";
import { z } from "zod";
import { type BareNetwork, openBareNetworks } from "./bare-network.ts";
import { type FrozenGuest, makeOverlay } from "./bare-restore.ts";

const slotsTimeoutMs = 30_000;

/** Of every sandbox that is measured. */
export const memoryMib = 512;

/** Where nothing is said: as hosts are set up. */
export interface HostOptions {
  readonly memory?: "auto" | "uffd";
  /** How many sandboxes come at once: each finds a slot ready, as the bare engine finds its namespace. */
  readonly slots?: number;
  readonly environment?: NodeJS.ProcessEnv;
}

const goldenSchema = z.object({ generation: z.uuid() });
const manifestSchema = z.object({
  id: z.uuid(),
  memoryMib: z.number(),
  memory: z.object({ layers: z.array(z.string()).length(1), flat: z.literal(true) }),
  disk: z.object({ layers: z.array(z.string()).min(1) }),
});
const stepsSchema = z.array(z.object({ step: z.string(), milliseconds: z.number() }));
const logLineSchema = z.object({
  msg: z.string(),
  sandboxId: z.string(),
  generation: z.uuid().optional(),
  steps: stepsSchema,
});
const sizeSchema = z.object({ newBytes: z.number() });

/** What the log says of an operation, by the word that it ends with. */
export type Operation = "created" | "paused" | "resumed" | "copied";

export interface OperationReport {
  readonly steps: z.infer<typeof stepsSchema>;
  /** Milliseconds from the beginning of one step to the end of another. */
  between(first: string, last: string): number;
  /** What the frozen state that it made takes up on the disk beyond what was there before. */
  newBytes(): Promise<number>;
}

export class FrozenHost {
  /** The same state for the bare engine. */
  readonly frozen: FrozenGuest;
  /** For the bare engine's disks: on the file system that Wrenn's are on. */
  readonly scratch: string;
  readonly #agent: TestHostAgent;

  private constructor(agent: TestHostAgent, frozen: FrozenGuest, scratch: string) {
    this.#agent = agent;
    this.frozen = frozen;
    this.scratch = scratch;
  }

  /** Starts a host agent in a directory of its own, and has it make its golden snapshot. */
  static async start({ memory = "auto", slots = 2, environment = {} }: HostOptions = {}): Promise<FrozenHost> {
    const agent = await TestHostAgent.prepare({
      WRENN_MEMORY: memory,
      WRENN_SLOT_POOL: String(slots),
      WRENN_LOG_LEVEL: "info",
      ...environment,
    });
    try {
      await agent.start();
      const first = agent.request({ memoryMib });
      await agent.client.createSandbox(first);
      await agent.client.destroySandbox({ sandboxId: first.sandboxId });
      const scratch = path.join(agent.layout.root, "bare");
      await mkdir(scratch);
      return new FrozenHost(agent, await goldenGuest(agent.layout, scratch), scratch);
    } catch (error) {
      await agent.remove();
      throw error;
    }
  }

  get pid(): number {
    if (this.#agent.process === null) throw new Error("the host agent does not run");
    return this.#agent.process.pid;
  }

  async create(sandboxId = newId("sandbox")): Promise<SandboxId> {
    await this.#agent.client.createSandbox(this.#agent.request({ sandboxId, memoryMib }));
    return sandboxId;
  }

  async run(id: SandboxId, command: string): Promise<string> {
    return execute(this.#agent.layout.hostAgentSocket, id, command);
  }

  async pause(id: SandboxId): Promise<void> {
    await this.#agent.client.pauseSandbox({ sandboxId: id });
  }

  async resume(id: SandboxId): Promise<void> {
    await this.#agent.client.resumeSandbox({ sandboxId: id, accessToken: testToken });
  }

  async fork(id: SandboxId, count: number): Promise<SandboxId[]> {
    const ids = Array.from({ length: count }, () => newId("sandbox"));
    const forks = ids.map((sandboxId) => ({ sandboxId, accessToken: testToken }));
    await this.#agent.client.forkSandbox({ sandboxId: id, accessToken: testToken, forks });
    return ids;
  }

  async destroy(id: SandboxId): Promise<void> {
    await this.#agent.client.destroySandbox({ sandboxId: id });
  }

  /** The process of a sandbox's engine. */
  async engineOf(id: SandboxId): Promise<number> {
    return (await engineOf(this.#agent, id)).pid;
  }

  /** Leaves what sandboxes are restored from on the disk alone. Nothing may have it mapped. */
  async dropCache(): Promise<void> {
    const { memory, deviceState, disk } = this.frozen;
    for (const file of [memory, deviceState, disk]) await run("dd", [`if=${file}`, "iflag=nocache", "count=0"]);
  }

  /** Waits until as many slots stand ready as are kept. */
  async awaitSlots(count: number): Promise<void> {
    const ready = await pollUntil(
      async () => ((await this.#agent.client.getHost({})).slotsReady < count ? null : true),
      { timeoutMs: slotsTimeoutMs, intervalMs: 50 },
    );
    if (ready === null) throw new Error(`${count} slots are not ready`);
  }

  /** What the log tells of the last operation of that kind on a sandbox. */
  async report(id: SandboxId, operation: Operation): Promise<OperationReport> {
    const lines = (await this.#agent.log()).split("\n").flatMap((text) => {
      const line = logLineSchema.safeParse(parseJson(text)).data;
      return line?.sandboxId === id && line.msg === operation ? [line] : [];
    });
    const last = lines.at(-1);
    if (last === undefined) throw new Error(`the log does not tell how ${id} was ${operation}`);
    const { steps, generation } = last;
    const between = (first: string, end: string): number => {
      const names = steps.map(({ step }) => step);
      const [from, to] = [names.indexOf(first), names.indexOf(end)];
      if (from < 0 || to < from) throw new Error(`there are no steps from "${first}" to "${end}"`);
      return steps.slice(from, to + 1).reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    };
    const newBytes = async (): Promise<number> => {
      if (generation === undefined) throw new Error("no frozen state was made");
      const { manifest } = this.#agent.layout.generation(parseUuid("generation", generation));
      return sizeSchema.parse(await readJson(manifest)).newBytes;
    };
    return { steps, between, newBytes };
  }

  async stop(): Promise<void> {
    await this.#agent.remove();
  }
}

/** Runs work with a host and as many bare engines' networks, and clears both away. */
export async function besideBare<Result>(
  options: HostOptions & { readonly networks: number },
  work: (host: FrozenHost, networks: readonly BareNetwork[]) => Promise<Result>,
): Promise<Result> {
  const { networks, close } = await openBareNetworks(options.networks);
  try {
    const host = await FrozenHost.start(options);
    try {
      return await work(host, networks);
    } finally {
      await host.stop();
    }
  } finally {
    await close();
  }
}

/** The golden snapshot of a host that has one, as a bare engine takes it. */
export async function goldenGuest(layout: Layout, scratch: string): Promise<FrozenGuest> {
  const { id, memory, disk } = await goldenOf(layout);
  const [memoryLayer = ""] = memory.layers;
  const [diskLayer = ""] = disk.layers;
  const overlay = path.join(scratch, "empty.qcow2");
  const diskFile = layout.layer(parseUuid("layer", diskLayer)).disk("qcow2");
  await makeOverlay(overlay, diskFile);
  const { memory: memoryFile } = layout.layer(parseUuid("layer", memoryLayer));
  return {
    memoryMib,
    memory: memoryFile,
    deviceState: layout.generation(parseUuid("generation", id)).deviceState,
    disk: diskFile,
    overlay,
  };
}

/** The manifest of the golden snapshot of the size that is measured. */
async function goldenOf(layout: Layout): Promise<z.infer<typeof manifestSchema>> {
  for (const name of await readdir(layout.golden)) {
    const { generation } = goldenSchema.parse(await readJson(path.join(layout.golden, name)));
    const { manifest } = layout.generation(parseUuid("generation", generation));
    const parsed = manifestSchema.parse(await readJson(manifest));
    if (parsed.memoryMib === memoryMib) return parsed;
  }
  throw new Error(`there is no golden snapshot of ${memoryMib} MiB`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
