/** For tests: a host agent as a process of its own, over a temporary WRENN_DIR that borrows this machine's kernel and templates. */
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import {
  bootManifestSchema,
  hostAgentProto,
  minimalTemplateId,
  newId,
  platformTeamId,
  type SandboxId,
} from "@wrenn/contract";
import {
  identifyProcess,
  type Layout,
  layoutFromEnvironment,
  pollUntil,
  readJson,
  type ProcessIdentity,
  run,
  signalProcess,
  startDaemon,
  waitForExit,
  wrennLayout,
  writeJsonDurably,
} from "@wrenn/system";
import { findAllEngineProcesses } from "../engines/engines.ts";
import { blockDevicesOf } from "./block-devices.ts";
import { readKvmVerdict } from "../engines/qemu/kvm.ts";
import { engineUnderTest } from "../engines/testing/engine-under-test.ts";
import { defaultSlotCidr, instanceTag } from "../network/slot-pool.ts";

const mainProgram = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/** A machine that is itself emulated takes minutes for what takes others a second. */
const startTimeoutMs = 240_000;

export interface PrepareOptions {
  /** What there is to boot: this machine's files unless said otherwise. */
  readonly boot?: "missing" | "panics";
  /** Where its directory is made. */
  readonly parent?: string;
  /** What Node runs, and its arguments; the host agent unless said otherwise. */
  readonly program?: (root: string) => string[];
}

export type HostAgentClient = Client<typeof hostAgentProto.HostAgent>;

export type CreateFields = Omit<hostAgentProto.CreateSandboxRequest, "$typeName" | "$unknown">;

export class TestHostAgent {
  readonly layout: Layout;
  readonly client: HostAgentClient;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #program: readonly string[];
  process: ProcessIdentity | null = null;

  private constructor(layout: Layout, environment: NodeJS.ProcessEnv, program: readonly string[]) {
    this.layout = layout;
    this.#environment = environment;
    this.#program = program;
    const transport = createConnectTransport({
      baseUrl: "http://host-agent",
      httpVersion: "1.1",
      nodeOptions: { socketPath: layout.hostAgentSocket },
    });
    this.client = createClient(hostAgentProto.HostAgent, transport);
  }

  /** Makes the directory; `start` starts the process. */
  static async prepare(environment: NodeJS.ProcessEnv = {}, options: PrepareOptions = {}): Promise<TestHostAgent> {
    const root = await makeRoot(options.parent ?? tmpdir());
    const installed = layoutFromEnvironment();
    const layout = wrennLayout(root);
    if (options.boot !== "missing") await borrowTemplate(installed, layout);
    await symlink(installed.bin, layout.bin);
    if (options.boot === undefined) await symlink(installed.boot, layout.boot);
    if (options.boot === "panics") await makePanickingBoot(installed, layout);
    // The verdict on KVM costs seconds where it hangs, and has a test of its own.
    await borrowVerdict(installed, layout);
    const defaults = {
      WRENN_ENGINE: engineUnderTest,
      WRENN_SLOT_POOL: "1",
      WRENN_WARM_START: "off",
      WRENN_LOG_LEVEL: "debug",
    };
    const program = options.program?.(root) ?? [mainProgram];
    return new TestHostAgent(layout, { ...process.env, ...defaults, ...environment, WRENN_DIR: root }, program);
  }

  /** Starts the process and waits until it answers. */
  async start(): Promise<void> {
    const { pid } = await startDaemon(process.execPath, this.#program, {
      logFile: this.logFile,
      env: this.#environment,
    });
    this.process = await identifyProcess(pid);
    const answered = await pollUntil(
      async () => {
        if ((await identifyProcess(pid)) === null) {
          this.process = null;
          throw new Error(`the host agent ended:\n${await this.log()}`);
        }
        try {
          return await this.client.getHost({});
        } catch {
          return null;
        }
      },
      { timeoutMs: startTimeoutMs, intervalMs: 50 },
    );
    if (answered === null) throw new Error(`the host agent does not answer:\n${await this.log()}`);
  }

  /** Starts a further process, which should refuse; resolves with its last words. */
  async startRefused(): Promise<string> {
    const { exited } = await startDaemon(process.execPath, this.#program, {
      logFile: this.logFile,
      env: this.#environment,
    });
    if ((await exited) === 0) throw new Error("the host agent did not refuse to start");
    return (await this.log()).slice(-1_000);
  }

  get logFile(): string {
    return path.join(this.layout.root, "host-agent.log");
  }

  async log(): Promise<string> {
    return readFile(this.logFile, "utf8");
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    if (this.process === null) return;
    await signalProcess(this.process, signal);
    if (!(await waitForExit(this.process, startTimeoutMs))) throw new Error(`the host agent ignores ${signal}`);
    this.process = null;
  }

  async restart(): Promise<void> {
    await this.signal("SIGKILL");
    await this.start();
  }

  /** Destroys what is left, stops the process and removes the directory. */
  async remove(): Promise<void> {
    if (this.process === null && existsSync(this.layout.sandboxes)) await this.start();
    if (this.process !== null) {
      const { sandboxes } = await this.client.listSandboxes({});
      for (const { sandboxId } of sandboxes) await this.client.destroySandbox({ sandboxId });
      await this.signal("SIGTERM");
    }
    await rm(this.layout.root, { recursive: true, force: true });
  }

  /** A request for the smallest useful sandbox of the built-in template. */
  request(overrides: Partial<CreateFields> = {}): CreateFields {
    return {
      sandboxId: newId("sandbox"),
      teamId: platformTeamId,
      templateTeamId: platformTeamId,
      templateId: minimalTemplateId,
      vcpus: 1,
      memoryMib: 256,
      diskMib: 5_120,
      envs: {},
      accessToken: testToken,
      templateAccessToken: "",
      ...overrides,
    };
  }

  /** Whatever of this directory's sandboxes exists on the machine, apart from slots that stand ready. */
  async traces(): Promise<Traces> {
    const tag = instanceTag(this.layout.root);
    const engines = await findAllEngineProcesses(this.layout);
    const { stdout: namespaces } = await run("ip", ["netns", "list"]);
    return {
      engines: engines.map(({ pid }) => pid),
      directories: await readdir(this.layout.sandboxes),
      cgroups: await cgroupsOf(tag),
      blockDevices: await blockDevicesOf(this.layout),
      namespaces: namespaces.split("\n").filter((line) => line.startsWith(`wrenn-${tag}-`)).length,
    };
  }
}

export interface Traces {
  readonly engines: number[];
  readonly directories: string[];
  readonly cgroups: string[];
  readonly blockDevices: string[];
  readonly namespaces: number;
}

export const testToken = "token-of-a-test";

/** The engine's process of a sandbox, as its journal names it. */
export async function engineOf(agent: TestHostAgent, id: string): Promise<ProcessIdentity> {
  const journal = await readFile(agent.layout.sandbox(id as SandboxId).journal, "utf8");
  return (JSON.parse(journal) as { process: ProcessIdentity }).process;
}

/** A directory whose range of addresses no other instance on this machine uses: there are 256, and tests run beside each other. */
async function makeRoot(parent: string): Promise<string> {
  const root = await mkdtemp(path.join(parent, "wrenn-"));
  await chmod(root, 0o711);
  const [, second, third = 0] = defaultSlotCidr(instanceTag(root)).split(".").map(Number);
  const { stdout } = await run("ip", ["-4", "-oneline", "address"]);
  const isTaken = [...stdout.matchAll(/inet 10\.(\d+)\.(\d+)\./g)].some(
    ([, a, b]) => Number(a) === second && Number(b) >> 4 === third >> 4,
  );
  if (!isTaken) return root;
  await rm(root, { recursive: true });
  return makeRoot(parent);
}

/** The built-in template alone: snapshots become templates beside it, and must not outlive their test. */
async function borrowTemplate(installed: Layout, layout: Layout): Promise<void> {
  const { directory } = layout.template(platformTeamId, minimalTemplateId);
  await mkdir(path.dirname(directory), { recursive: true });
  await symlink(installed.template(platformTeamId, minimalTemplateId).directory, directory);
}

/** What is known of this machine's KVM, so that not every host agent tries it. */
async function borrowVerdict(installed: Layout, layout: Layout): Promise<void> {
  const verdict = await readKvmVerdict(installed);
  if (verdict === null) return;
  await mkdir(layout.run, { mode: 0o711 });
  await writeJsonDurably(layout.kvmVerdict, verdict, 0o644);
}

/** The installed kernel with an initramfs that holds no init. */
async function makePanickingBoot(installed: Layout, layout: Layout): Promise<void> {
  const manifest = bootManifestSchema.parse(await readJson(installed.bootManifest));
  const directory = path.join(layout.boot, "panics");
  await mkdir(directory, { recursive: true });
  await symlink(path.join(installed.boot, manifest.kernel), path.join(directory, "vmlinuz"));
  await writeFile(path.join(directory, "initramfs"), Buffer.alloc(1_048_576));
  const files = { kernel: "panics/vmlinuz", initramfs: "panics/initramfs" };
  await writeJsonDurably(layout.bootManifest, { ...manifest, ...files });
}

async function cgroupsOf(tag: string): Promise<string[]> {
  const { stdout } = await run("find", ["/sys/fs/cgroup", "-type", "d", "-path", `*/wrenn/${tag}/*`]);
  return stdout.split("\n").filter((line) => line !== "");
}
