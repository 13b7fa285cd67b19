/** A whole server in a WRENN_DIR of its own, started and stopped with the real command line. */
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { minimalTemplateId, platformTeamId } from "@wrenn/contract";
import { readCredentials } from "@wrenn/cli";
import { type ConnectionOptions, type CreateSandboxOptions, Sandbox } from "@wrenn/sdk";
import { isMissingFile, type Layout, layoutFromEnvironment, pollUntil, wrennLayout } from "@wrenn/system";
import { type CliOptions, CliProcess, type CliResult, runCli } from "./cli.ts";
import { leftoversOf } from "./leftovers.ts";

/** Made by the set-up, and the same for every server of a machine. */
const shared = ["boot", "bin", "cache"] as const;

export class TestServer {
  readonly layout: Layout;
  readonly env: NodeJS.ProcessEnv;
  readonly url: string;

  private constructor(layout: Layout, env: NodeJS.ProcessEnv, url: string) {
    this.layout = layout;
    this.env = env;
    this.url = url;
  }

  /** A place for a server; nothing is started. */
  static async prepare(options: { port?: number } = {}): Promise<TestServer> {
    // Not in a deep temporary directory: the paths of unix sockets are short.
    const root = await mkdtemp("/tmp/wrenn-e2e-");
    await chmod(root, 0o711);
    const machine = layoutFromEnvironment();
    const layout = wrennLayout(root);
    for (const name of shared) await symlink(path.join(machine.root, name), path.join(root, name));
    // The built-in template alone: snapshots become templates beside it, and must not outlive their server.
    const { directory } = layout.template(platformTeamId, minimalTemplateId);
    await mkdir(path.dirname(directory), { recursive: true });
    await symlink(machine.template(platformTeamId, minimalTemplateId).directory, directory);
    await mkdir(path.join(root, "sandboxes"), { mode: 0o711 });
    await mkdir(layout.run, { mode: 0o711 });
    // Whether KVM works has been found out once for this boot of the machine; finding out takes a VM.
    await copyFile(machine.kvmVerdict, layout.kvmVerdict).catch(ignoreMissing);
    const port = options.port ?? (await freePort());
    const env = {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      WRENN_DIR: root,
      WRENN_LISTEN: `127.0.0.1:${port}`,
      WRENN_SLOT_POOL: "2",
      ...(process.env["WRENN_ENGINE"] === undefined ? {} : { WRENN_ENGINE: process.env["WRENN_ENGINE"] }),
      // What is tested is what has been set up before the tests.
      WRENN_SETUP: "never",
    };
    return new TestServer(layout, env, `http://127.0.0.1:${port}`);
  }

  static async start(): Promise<TestServer> {
    const server = await TestServer.prepare();
    const result = await server.cli(["up", "--detach"]);
    if (result.exitCode !== 0) {
      await rm(server.layout.root, { recursive: true, force: true });
      throw new Error(`wrenn up --detach exited with ${result.exitCode}: ${result.stderr}`);
    }
    return server;
  }

  /** What the SDK needs to know of the server. */
  async api(): Promise<ConnectionOptions> {
    return { apiUrl: this.url, apiKey: await this.apiKey() };
  }

  async createSandbox(options: CreateSandboxOptions = {}): Promise<Sandbox> {
    return Sandbox.create({ ...(await this.api()), ...options });
  }

  async apiKey(): Promise<string> {
    const credentials = await readCredentials(this.layout);
    if (credentials === null) throw new Error("the server has left no credentials");
    return credentials.api_key;
  }

  cli(args: readonly string[], options: Partial<CliOptions> = {}): Promise<CliResult> {
    return runCli(args, { ...options, env: { ...this.env, ...options.env } });
  }

  spawnCli(args: readonly string[], options: Partial<CliOptions> = {}): CliProcess {
    return new CliProcess(args, { ...options, env: { ...this.env, ...options.env } });
  }

  /** The pid of a part of the server: `server`, `postgres`, `host-agent`, `control-plane`. */
  async pidOf(part: string): Promise<number> {
    const record = JSON.parse(await readFile(this.layout.processRecord(part), "utf8")) as { identity: { pid: number } };
    return record.identity.pid;
  }

  async status(): Promise<{ state: string }> {
    const { stdout } = await this.cli(["status", "--json"]);
    return JSON.parse(stdout.toString("utf8")) as { state: string };
  }

  /** Waits until all parts answer again. */
  async untilHealthy(timeoutMs = 60_000): Promise<void> {
    const healthy = await pollUntil(async () => ((await this.status()).state === "healthy" ? true : null), {
      timeoutMs,
      intervalMs: 300,
    });
    if (healthy === null) throw new Error(`the server is not healthy after ${timeoutMs} ms`);
  }

  /** Ids of all sandboxes that have not been destroyed. */
  async sandboxIds(): Promise<string[]> {
    const ids: string[] = [];
    for await (const { id } of Sandbox.list(await this.api())) ids.push(id);
    return ids;
  }

  /** What there is on the machine because of this server's sandboxes, once it has had the time to go. */
  async untilNoSandboxes(timeoutMs = 20_000): Promise<string[]> {
    await pollUntil(async () => ((await this.sandboxIds()).length === 0 ? true : null), { timeoutMs, intervalMs: 100 });
    return this.sandboxIds();
  }

  /** Stops everything, by force if need be, and returns what is left of it on the machine: nothing, if all is well. */
  async stop(): Promise<string[]> {
    const { exitCode, stderr } = await this.cli(["down", "--destroy"]);
    const left = await leftoversOf(this.layout.root);
    await rm(this.layout.root, { recursive: true, force: true });
    return exitCode === 0 ? left : [`wrenn down --destroy exited with ${exitCode}: ${stderr}`, ...left];
  }
}

function ignoreMissing(error: unknown): void {
  if (!isMissingFile(error)) throw error;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}
