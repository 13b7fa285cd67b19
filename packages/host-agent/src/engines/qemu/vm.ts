/** A running QEMU: its console, and the ways it can end. The same for one just started and for one adopted. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { isAlive, type ProcessIdentity, type SandboxLayout, signalProcess, waitForExit } from "@wrenn/system";
import { z } from "zod";
import { deferred } from "../../deferred.ts";
import { boundLog, ConsoleLog } from "../console-log.ts";
import type { VirtualMachine, VmEnd } from "../engine.ts";
import { consoleChardev, consoleRingBytes, diskDevice } from "./command-line.ts";
import { QmpClient, type QmpEvent } from "./qmp.ts";

const statusSchema = z.object({ status: z.string() });

/** Run states (QAPI type RunState) in which a guest will not run again. */
const endedStatuses: ReadonlySet<string> = new Set(["shutdown", "guest-panicked", "internal-error", "io-error"]);

/** How often the console is emptied into its file, so that the last words of an engine that is killed are not lost. */
const drainIntervalMs = 2_000;

/** How long an engine that hangs is waited for to give out the last of the console. */
const lastWordsMs = 1_000;

/** How often an adopted engine's process, whose exit the kernel tells only its parent, is looked at. */
const aliveIntervalMs = 1_000;

/** How soon background work that failed is tried again. */
const retryIntervalMs = 1_000;

export class QemuVm implements VirtualMachine {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #end = deferred<VmEnd>();
  readonly #files: SandboxLayout;
  readonly #console: ConsoleLog;
  #qmp: QmpClient | null = null;
  #draining: Promise<void> | null = null;
  /** Whether the guest's status is being asked for, and whether it may have changed since. */
  #checking = false;
  #changed = false;
  /** Set when the end is known, or wanted: nothing is reported after it. */
  #over = false;

  private constructor(identity: ProcessIdentity, files: SandboxLayout) {
    this.identity = identity;
    this.#files = files;
    this.#console = new ConsoleLog(files.consoleLog);
    this.ended = this.#end.promise;
  }

  /**
   * Connects to a QEMU process that is starting or has long been running.
   * @param exited settles when the process ends, if this process is its parent
   * @throws WrennError `engine_failed` when it does not answer
   */
  static async connect(
    identity: ProcessIdentity,
    files: SandboxLayout,
    options: { exited?: Promise<number>; signal?: AbortSignal } = {},
  ): Promise<QemuVm> {
    const vm = new QemuVm(identity, files);
    const { exited } = options;
    if (exited !== undefined) vm.#background(() => vm.#awaitExit(exited));
    await vm.#connect({
      mayStillCome: () => !vm.#over,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    vm.#every(drainIntervalMs, () => vm.#drain());
    if (exited === undefined) vm.#every(aliveIntervalMs, () => vm.#checkAlive());
    // A guest may have ended while no host agent was connected to hear of it.
    await vm.#checkStatus();
    return vm;
  }

  /** Gives up on a QEMU that takes too long to say it. */
  async drainConsole(): Promise<void> {
    const drain = async (): Promise<void> => {
      await this.#draining;
      await this.#drain();
    };
    await Promise.race([drain(), delay(lastWordsMs, undefined, { ref: false })]);
  }

  async consoleTail(): Promise<string> {
    await this.drainConsole();
    return this.#console.tail();
  }

  async freeze(): Promise<void> {
    await this.#command("stop");
    // `live: false` keeps the images' locks: this VM may yet go on. Its memory stays where it is.
    await this.#command("xen-save-devices-state", { filename: this.#files.deviceState, live: false });
  }

  async thaw(): Promise<void> {
    await this.#command("cont");
  }

  async isFrozen(): Promise<boolean> {
    const { status } = statusSchema.parse(await this.#command("query-status"));
    return status === "paused";
  }

  async switchDisk(overlay: string): Promise<void> {
    const existing = { "snapshot-file": overlay, format: "qcow2", mode: "existing" };
    await this.#command("blockdev-snapshot-sync", { device: diskDevice, ...existing });
  }

  async kill(): Promise<void> {
    await this.drainConsole();
    this.#stopWatching();
    await signalProcess(this.identity, "SIGKILL");
    if (!(await waitForExit(this.identity, deadlines.engineQuit))) {
      throw new WrennError("engine_failed", {
        message: `QEMU (pid ${this.identity.pid}) did not end within ${deadlines.engineQuit} ms of being killed.`,
      });
    }
  }

  async detach(): Promise<void> {
    await this.drainConsole();
    this.#stopWatching();
  }

  async #connect(options: { mayStillCome?: () => boolean; signal?: AbortSignal }): Promise<void> {
    const onEvent = (event: QmpEvent): void => {
      this.#handleEvent(event);
    };
    const qmp = await QmpClient.connect(this.#files.qmpSocket, onEvent, options);
    this.#qmp = qmp;
    this.#background(() => this.#awaitLoss(qmp));
  }

  async #command(name: string, args: Record<string, unknown> = {}): Promise<unknown> {
    if (this.#qmp === null) throw new WrennError("engine_failed", { message: "QEMU's control socket is closed." });
    return this.#qmp.execute(name, args);
  }

  #handleEvent(event: QmpEvent): void {
    switch (event.name) {
      case "SHUTDOWN":
      case "GUEST_PANICKED":
      case "STOP":
        this.#statusChanged();
        break;
      default:
        break;
    }
  }

  /** One question at a time, however many events an engine sends: a compromised one must not fill the host agent's memory. */
  #statusChanged(): void {
    this.#changed = true;
    if (this.#checking) return;
    this.#checking = true;
    this.#background(async () => {
      do {
        this.#changed = false;
        await this.#checkStatus();
      } while (this.#changed);
      this.#checking = false;
    });
  }

  /** Asks QEMU whether the guest still runs, and reports its end if it does not. */
  async #checkStatus(): Promise<void> {
    if (this.#over || this.#qmp === null) return;
    try {
      const { status } = statusSchema.parse(await this.#qmp.execute("query-status"));
      if (endedStatuses.has(status)) await this.#guestEnded(status);
    } catch (error) {
      // A QEMU that is going away is reported by its connection; one that hangs, by nobody: it counts as dead.
      if (await isAlive(this.identity)) await this.#report("vm_died", `QEMU does not answer: ${String(error)}`);
    }
  }

  async #guestEnded(status: string): Promise<void> {
    const console = await this.consoleTail();
    if (status === "guest-panicked" || console.includes("Kernel panic - not syncing")) {
      await this.#report("guest_panicked", `The guest's kernel panicked${panicReason(console)}.`);
    } else if (status === "shutdown") {
      await this.#report("guest_powered_off", "The guest powered off or restarted itself.");
    } else {
      await this.#report("vm_died", `QEMU stopped the guest: ${status}.`);
    }
  }

  async #awaitExit(exited: Promise<number>): Promise<void> {
    await exited;
    await this.#processGone();
  }

  /** The connection alone proves nothing: the process decides. */
  async #awaitLoss(qmp: QmpClient): Promise<void> {
    await qmp.closed;
    if (this.#over) return;
    if (!(await waitForExit(this.identity, deadlines.engineQuit))) {
      try {
        await this.#connect({});
      } catch (error) {
        await this.#report("vm_died", `QEMU closed its control socket and did not open it again: ${String(error)}`);
      }
      this.#statusChanged();
      return;
    }
    await this.#processGone();
  }

  async #checkAlive(): Promise<void> {
    if (!(await isAlive(this.identity))) await this.#processGone();
  }

  async #processGone(): Promise<void> {
    await this.#report("vm_died", "The virtual machine's process ended unexpectedly.");
  }

  async #report(code: VmEnd["code"], message: string): Promise<void> {
    if (this.#over) return;
    this.#stopWatching();
    this.#end.resolve({ code, message, at: new Date(), consoleTail: await this.#lastWords() });
  }

  async #lastWords(): Promise<string> {
    try {
      return await this.#console.tail();
    } catch {
      return "";
    }
  }

  #stopWatching(): void {
    this.#over = true;
    this.#qmp?.close();
  }

  #every(intervalMs: number, work: () => Promise<void>): void {
    this.#background(async () => {
      while (!this.#over) {
        await delay(intervalMs, undefined, { ref: false });
        await work();
      }
    });
  }

  /**
   * Does work that nobody waits for, again until it succeeds. What fails in passing, such as a look into /proc without a free file
   * descriptor, is no sign that the VM has ended, and must not end the watch over it, nor the host agent.
   */
  #background(work: () => Promise<void>): void {
    const persist = async (): Promise<void> => {
      while (!this.#over) {
        try {
          await work();
          return;
        } catch {
          await delay(retryIntervalMs, undefined, { ref: false });
        }
      }
    };
    void persist();
  }

  /** Moves what the guest has printed into its file. One at a time: reading takes it out of the ring. */
  async #drain(): Promise<void> {
    if (this.#over || this.#qmp === null) return;
    this.#draining ??= this.#drainOnce(this.#qmp);
    await this.#draining;
  }

  async #drainOnce(qmp: QmpClient): Promise<void> {
    try {
      const args = { device: consoleChardev, size: consoleRingBytes, format: "base64" };
      const encoded = z.string().parse(await qmp.execute("ringbuf-read", args));
      await this.#console.append(Buffer.from(encoded, "base64"));
      await boundLog(this.#files.engineLog);
    } catch {
      // The console is a courtesy: a full disk or a dying engine must not stop the watch over the VM.
    } finally {
      this.#draining = null;
    }
  }
}

/** `: VFS: Unable to mount root fs` out of `Kernel panic - not syncing: VFS: …`, or nothing. */
function panicReason(console: string): string {
  const reason = /Kernel panic - not syncing: (?<reason>[^\n]+)/.exec(console)?.groups?.["reason"];
  return reason === undefined ? "" : `: ${reason.trim()}`;
}
