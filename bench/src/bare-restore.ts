/**
 * The yardstick of restoring: QEMU started by hand from a frozen state, with the guest's memory mapped privately from one file, a copied
 * overlay, and a network that stands ready. It runs as root in its namespace: no jail, no limits, no journal, nothing checked, and the
 * guest is not told that it is a copy: its random generator, clock, names and tokens are those of all others.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { copyFile, mkdtemp, open, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { guestNetwork } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { z } from "zod";
import type { BareNetwork } from "./bare-network.ts";

/** What a bare engine needs of a guest that was frozen. */
export interface FrozenGuest {
  readonly memoryMib: number;
  /** All of its memory, as one file. */
  readonly memory: string;
  readonly deviceState: string;
  readonly disk: string;
  /** An empty overlay over its disk, to be copied. */
  readonly overlay: string;
}

const messageSchema = z.object({
  event: z.string().optional(),
  id: z.string().optional(),
  return: z.unknown().optional(),
  error: z.unknown().optional(),
});
const statusSchema = z.object({ status: z.string() });

const pageBytes = 4_096;
/** Read and written at once; more is not faster. */
const chunkBytes = 1_048_576;

export class BareGuest {
  readonly address: string;
  readonly overlay: string;
  readonly #process: ChildProcess;
  readonly #directory: string;
  readonly #frozen: FrozenGuest;
  readonly #waiting = new Map<string, (message: z.infer<typeof messageSchema>) => void>();

  private constructor(process: ChildProcess, directory: string, frozen: FrozenGuest, address: string) {
    this.#process = process;
    this.#directory = directory;
    this.#frozen = frozen;
    this.address = address;
    this.overlay = path.join(directory, "overlay.qcow2");
    if (process.stdout === null) throw new Error("QEMU has no standard output");
    createInterface({ input: process.stdout }).on("line", (line) => {
      const message = messageSchema.parse(JSON.parse(line));
      this.#waiting.get(message.id ?? message.event ?? "")?.(message);
    });
  }

  get pid(): number {
    if (this.#process.pid === undefined) throw new Error("QEMU did not start");
    return this.#process.pid;
  }

  /** Resolves when the guest runs. @param scratch a directory on the file system that Wrenn's disks are on */
  static async restore(frozen: FrozenGuest, network: BareNetwork, scratch: string): Promise<BareGuest> {
    const directory = await mkdtemp(path.join(scratch, "bare-"));
    const overlay = path.join(directory, "overlay.qcow2");
    await copyFile(frozen.overlay, overlay);
    const deviceState = await open(frozen.deviceState);
    try {
      const child = spawn(
        "nsenter",
        [
          ...[`--net=${network.namespacePath}`, "--", "qemu-system-x86_64"],
          ...["-M", "microvm,memory-backend=mem,mem-merge=off", "-cpu", "max"],
          ...["-smp", "1", "-m", `${frozen.memoryMib}M`, "-accel", "tcg,thread=multi,tb-size=160"],
          ...["-object", `memory-backend-file,id=mem,size=${frozen.memoryMib}M,mem-path=${frozen.memory},share=off`],
          ...["-nodefaults", "-no-user-config", "-display", "none"],
          ...["-global", "migration.send-configuration=off", "-incoming", "fd:3"],
          ...["-chardev", "ringbuf,id=console,size=65536", "-serial", "chardev:console", "-qmp", "stdio"],
          ...["-drive", `id=disk,file=${overlay},format=qcow2,if=none,cache=writeback,discard=unmap`],
          ...["-device", "virtio-blk-device,drive=disk"],
          ...["-netdev", `tap,id=net,ifname=${network.tap},script=no,downscript=no`],
          ...["-device", `virtio-net-device,netdev=net,mac=${guestNetwork.mac}`],
        ],
        { stdio: ["pipe", "pipe", "ignore", deviceState.fd] },
      );
      const guest = new BareGuest(child, directory, frozen, network.address);
      await guest.#untilRunning();
      return guest;
    } finally {
      await deviceState.close();
    }
  }

  async #untilRunning(): Promise<void> {
    const resumed = new Promise<void>((resolve) => {
      this.#waiting.set("RESUME", () => {
        resolve();
      });
    });
    await this.#command("qmp_capabilities");
    const { status } = statusSchema.parse(await this.#command("query-status"));
    if (status !== "running") await resumed;
  }

  /**
   * Stops the guest and writes what it has changed since it was restored: the state of its devices, and at their offsets in `memory`,
   * which may be a copy of what it was restored from, the pages that are its own by the kernel's page map. Durable when this resolves.
   * @returns how much was written
   */
  async freeze(memory: string, deviceState: string): Promise<number> {
    await this.#command("stop");
    await this.#command("xen-save-devices-state", { filename: deviceState, live: false });
    const bytes = await this.#writeChangedPages(memory);
    const handle = await open(deviceState, "r");
    await handle.datasync();
    await handle.close();
    return bytes;
  }

  async stop(): Promise<void> {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #writeChangedPages(file: string): Promise<number> {
    const begin = await this.#addressOfMemory();
    const pages = (this.#frozen.memoryMib * 1_048_576) / pageBytes;
    const map = Buffer.alloc(pages * 8);
    const pagemap = await open(`/proc/${this.pid}/pagemap`);
    await pagemap.read(map, 0, map.length, (begin / pageBytes) * 8);
    await pagemap.close();
    const source = await open(`/proc/${this.pid}/mem`);
    const target = await open(file, constants.O_WRONLY | constants.O_CREAT, 0o600);
    const chunk = Buffer.alloc(chunkBytes);
    let written = 0;
    for (let page = 0; page < pages;) {
      if (!isChanged(map, page)) {
        page += 1;
        continue;
      }
      let end = page + 1;
      while (end < pages && (end - page) * pageBytes < chunkBytes && isChanged(map, end)) end += 1;
      const length = (end - page) * pageBytes;
      await source.read(chunk, 0, length, begin + page * pageBytes);
      await target.write(chunk, 0, length, page * pageBytes);
      written += length;
      page = end;
    }
    await target.datasync();
    await Promise.all([source.close(), target.close()]);
    return written;
  }

  async #addressOfMemory(): Promise<number> {
    const maps = await readFile(`/proc/${this.pid}/maps`, "utf8");
    const line = maps.split("\n").find((each) => each.endsWith(` ${this.#frozen.memory}`));
    if (line === undefined) throw new Error("the bare engine does not map the guest's memory");
    return Number.parseInt(line, 16);
  }

  async #command(name: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const answer = new Promise<z.infer<typeof messageSchema>>((resolve, reject) => {
      this.#waiting.set(name, resolve);
      this.#process.once("exit", () => {
        reject(new Error(`QEMU ended before it answered ${name}`));
      });
    });
    this.#process.stdin?.write(`${JSON.stringify({ execute: name, arguments: args, id: name })}\n`);
    const { error, return: result } = await answer;
    this.#waiting.delete(name);
    if (error !== undefined) throw new Error(`QEMU refused ${name}: ${JSON.stringify(error)}`);
    return result;
  }
}

/** Present or swapped, and no longer the file's (Documentation/admin-guide/mm/pagemap.rst: bits 63, 62 and 61). */
function isChanged(map: Buffer, page: number): boolean {
  const top = map[page * 8 + 7] ?? 0;
  return (top & 0xc0) !== 0 && (top & 0x20) === 0;
}

/** Makes an overlay in which nothing has been written, as a bare engine's user does once for each frozen state. */
export async function makeOverlay(file: string, backing: string): Promise<void> {
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, file]);
}
