/**
 * How fast a pager fills memory on one processor out of the page cache, whether what it holds grows with what it has filled, and whether
 * a host agent's memory grows with the sandboxes that it has restored by pagers.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, open, readFile, rm, truncate } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { newId } from "@wrenn/contract";
import { type Layout, layoutFromEnvironment, pollUntil, run } from "@wrenn/system";
import { firstOutput } from "../first-output.ts";
import { FrozenHost } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";
import { residentMemoryMib } from "./guest-agent.ts";

const clientProgram = fileURLToPath(new URL("../../src/pager-client.py", import.meta.url));

const pageBytes = 4_096;
const memoryBytes = 268_435_456;
/** All but the last block of 64 KiB: a pager ends when it has filled everything. */
const pages = memoryBytes / pageBytes - 16;
/** Nobody's, neither of this machine's users nor of Wrenn's engines. */
const uid = 64_999;
/** Both the pager and the process that waits for its pages run on it. */
const processor = "0";

const restores = 100;
const atOnce = 4;
/** Before these, compilers and caches of the host agent have not settled. */
const settlingRestores = 40;
/** As in the benchmark of minutes of load: a heap grows until its collector sees a reason. */
const maxGrowthMib = 48;

export async function measurePager(runs: number): Promise<Measurement[]> {
  const microseconds: number[] = [];
  const grown: number[] = [];
  const image = await randomImage(layoutFromEnvironment());
  try {
    for (let round = 0; round < runs; round += 1) {
      const served = await serveOnce(image);
      microseconds.push((served.milliseconds * 1_000) / pages);
      grown.push(served.grownMib);
      console.error(progressLine("pager: memory filled", round + 1, runs, []));
    }
  } finally {
    await rm(image.directory, { recursive: true });
  }
  const name = `pager: ${memoryBytes / 1_048_576} MiB filled by faults, pager and VM on one processor`;
  return [
    // 40,000 pages a second.
    { name: `${name}: per page`, unit: "µs", ours: microseconds, target: 25, failures: 0 },
    {
      name: `${name}: resident memory more than after the first tenth`,
      unit: "MiB",
      ours: grown,
      target: 1,
      failures: 0,
    },
    await hostAgentGrowth(),
  ];
}

interface Image {
  readonly layout: Layout;
  readonly directory: string;
  readonly header: string;
}

/** An image without a page that is zero, which would be filled by far larger pieces. */
async function randomImage(layout: Layout): Promise<Image> {
  const directory = await mkdtemp("/tmp/wrenn-pager-");
  await chown(directory, uid, uid);
  const blank = path.join(directory, "blank");
  await (await open(blank, "w")).close();
  await truncate(blank, memoryBytes);
  const header = path.join(directory, "header");
  const client = new Client(
    spawn("python3", [clientProgram, String(memoryBytes), blank], { stdio: ["pipe", "pipe", "inherit"] }),
  );
  try {
    await client.ask("fill");
    const layers = ["--layers", directory, "--layer", newId("layer"), "--header", header];
    const memory = ["--pid", String(client.pid), "--memory-size", String(memoryBytes), "--mapped-file", blank];
    await run(layout.pager, ["capture", ...memory, ...layers]);
    return { layout, directory, header };
  } finally {
    await client.end();
  }
}

async function serveOnce(image: Image): Promise<{ milliseconds: number; grownMib: number }> {
  const { layout, directory, header } = image;
  const [socket, status] = ["socket", "status"].map((name) => path.join(directory, name));
  if (socket === undefined || status === undefined) throw new Error("there is no socket");
  await rm(status, { force: true });
  const what = [
    "--header",
    header,
    "--layers",
    directory,
    "--socket",
    socket,
    "--status",
    status,
    "--uid",
    String(uid),
  ];
  const pager = spawn("taskset", ["--cpu-list", processor, layout.pager, "serve", ...what], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (pager.pid === undefined) throw new Error("the pager did not start");
  const listens = await pollUntil(async () => readFile(status).catch(() => null), { timeoutMs: 10_000, intervalMs: 5 });
  if (listens === null) throw new Error("the pager does not listen");
  const device = await open("/dev/userfaultfd", "r+");
  const client = new Client(
    spawn("taskset", ["--cpu-list", processor, "python3", clientProgram, String(memoryBytes)], {
      uid,
      gid: uid,
      env: {
        PATH: process.env["PATH"],
        LD_PRELOAD: layout.memoryLibrary,
        WRENN_GUEST_MEMORY: `size=${memoryBytes},uffd=3,socket=${socket}`,
      },
      stdio: ["pipe", "pipe", "inherit", device.fd],
    }),
  );
  try {
    const tenth = Math.floor(pages / 10);
    const first = await client.ask(`touch 0 ${tenth}`);
    const before = await residentMemoryMib(pager.pid);
    const rest = await client.ask(`touch ${tenth} ${pages}`);
    const grownMib = (await residentMemoryMib(pager.pid)) - before;
    return { milliseconds: first + rest, grownMib };
  } finally {
    await device.close();
    await client.end();
    if (pager.exitCode === null) await once(pager, "exit");
  }
}

class Client {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(process: ChildProcess) {
    this.#process = process;
    if (process.stdout === null) throw new Error("the client has no standard output");
    this.#lines = createInterface({ input: process.stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    if (this.#process.pid === undefined) throw new Error("the client did not start");
    return this.#process.pid;
  }

  /** @returns milliseconds that it took */
  async ask(what: string): Promise<number> {
    this.#process.stdin?.write(`${what}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error(`the client ended instead of doing: ${what}`);
    return Number(value);
  }

  async end(): Promise<void> {
    this.#process.stdin?.end();
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, "exit");
  }
}

async function hostAgentGrowth(): Promise<Measurement> {
  const host = await FrozenHost.start({ memory: "uffd", slots: atOnce });
  try {
    await inBatches(settlingRestores, atOnce, () => restore(host));
    const before = await residentMemoryMib(host.pid);
    await inBatches(restores, atOnce, () => restore(host));
    const grown = (await residentMemoryMib(host.pid)) - before;
    const name = `host agent: resident memory more after ${restores} restores by pagers`;
    return { name, unit: "MiB", ours: [grown], target: maxGrowthMib, failures: 0 };
  } finally {
    await host.stop();
  }
}

async function restore(host: FrozenHost): Promise<void> {
  const id = await host.create();
  await firstOutput(host, id);
  await host.destroy(id);
}

async function inBatches(count: number, size: number, work: () => Promise<void>): Promise<void> {
  for (let done = 0; done < count; done += size) {
    await Promise.all(Array.from({ length: size }, work));
    console.error(progressLine("pager: restores", done + size, count, []));
  }
}
