/** A running QEMU: freezing it, and the ways it can end. The same for one just started and for one adopted. */
import { rm } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { isAlive, pollUntil, type ProcessIdentity, type SandboxLayout, waitForExit } from "@wrenn/system";
import { z } from "zod";
import { deferred } from "../../deferred.ts";
import type { VirtualMachine, VmEnd } from "../engine.ts";
import { hasRoomLeft } from "../room-left.ts";
import { panicReason, Vigil } from "../vigil.ts";
import { diskDevice } from "./command-line.ts";
import { ConsoleRing } from "./console-ring.ts";
import { assertDiskInPlace } from "./open-disk.ts";
import { QmpClient, type QmpEvent } from "./qmp.ts";

const statusSchema = z.object({ status: z.string() });

/** Run states (QAPI type RunState) in which a guest will not run again. */
const endedStatuses: ReadonlySet<string> = new Set(["shutdown", "guest-panicked", "internal-error", "io-error"]);

/** How often the console is emptied into its file, so that the last words of an engine that is killed are not lost. */
const drainIntervalMs = 2_000;

/** How long an engine that hangs is waited for to give out the last of the console. */
const lastWordsMs = 1_000;

/** How often an engine that loads a frozen state is asked whether it is done, should it not say so. */
const loadingIntervalMs = 50;

export class QemuVm implements VirtualMachine {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #vigil: Vigil;
  readonly #files: SandboxLayout;
  readonly #console: ConsoleRing;
  /** QEMU has said that the guest's processors run. */
  readonly #resumed = deferred<void>();
  #qmp: QmpClient | null = null;
  /** A freeze under way, in which QEMU may be silent for as long as its disk is slow. */
  #freezing: Promise<void> | null = null;
  /** Whether the guest's status is being asked for, and whether it may have changed since. */
  #checking = false;
  #changed = false;

  private constructor(identity: ProcessIdentity, files: SandboxLayout) {
    this.identity = identity;
    this.#files = files;
    this.#console = new ConsoleRing(files);
    this.#vigil = new Vigil(identity, () => this.#console.tail());
    this.ended = this.#vigil.ended;
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
    vm.#vigil.watchProcess(exited, () => vm.#processGone());
    await vm.#connect({
      mayStillCome: () => !vm.#vigil.over,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    vm.#vigil.every(drainIntervalMs, () => vm.#drainConsole());
    // A guest may have ended while no host agent was connected to hear of it.
    await vm.#checkStatus();
    return vm;
  }

  /** Gives up on a QEMU that takes too long to say it. */
  async drainConsole(): Promise<void> {
    if (this.#vigil.over || this.#qmp === null) return;
    await Promise.race([this.#console.drainAll(this.#qmp), delay(lastWordsMs, undefined, { ref: false })]);
  }

  async consoleTail(): Promise<string> {
    await this.drainConsole();
    return this.#console.tail();
  }

  async freeze(): Promise<void> {
    this.#freezing ??= this.#freeze();
    await this.#freezing;
  }

  async thaw(): Promise<void> {
    await this.#command("cont");
  }

  async isFrozen(): Promise<boolean> {
    return (await this.#status()) === "paused";
  }

  async switchDisk(overlay: string): Promise<void> {
    if (!(await this.isFrozen())) throw new WrennError("engine_failed", { message: "The guest is not frozen." });
    await assertDiskInPlace(this.identity.pid, await this.#command("query-named-block-nodes", { flat: true }));
    const existing = { "snapshot-file": overlay, format: "qcow2", mode: "existing" };
    await this.#command("blockdev-snapshot-sync", { device: diskDevice, ...existing });
  }

  /**
   * Resolves when the frozen state that QEMU was started with has been loaded: its guest then runs by itself.
   * @throws WrennError `engine_failed` when it does not run
   */
  async awaitRunning(signal: AbortSignal): Promise<void> {
    const look = async (): Promise<string | null> => {
      const status = await this.#status();
      if (status !== "inmigrate") return status;
      // Asking costs the processor that loads.
      await Promise.race([this.#resumed.promise, delay(loadingIntervalMs, undefined, { ref: false })]);
      return null;
    };
    const status = await pollUntil(look, { timeoutMs: deadlines.engineCommand, intervalMs: 0, signal });
    if (status === "running") return;
    throw new WrennError("engine_failed", {
      message: `The guest does not run: ${status ?? "its state is not loaded"}.`,
    });
  }

  async kill(): Promise<void> {
    await this.drainConsole();
    this.#stopWatching();
    await this.#vigil.killProcess();
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
    this.#vigil.background(() => this.#awaitLoss(qmp));
  }

  async #freeze(): Promise<void> {
    try {
      // Left by another user's engine of the same sandbox, it could not be written by this one.
      await rm(this.#files.deviceState, { recursive: true, force: true });
      await this.#command("stop", {}, deadlines.engineFreeze);
      // Of the memory, it writes nothing. `live: false` keeps the disk's lock: this VM may yet go on.
      await this.#command("xen-save-devices-state", { filename: this.#files.deviceState, live: false });
    } catch (error) {
      await rm(this.#files.deviceState, { recursive: true, force: true });
      // QEMU says no more than that it could not write.
      throw (await hasRoomLeft(this.#files.directory)) ? error : new WrennError("host_out_of_disk", { cause: error });
    } finally {
      this.#freezing = null;
    }
  }

  async #status(): Promise<string> {
    return statusSchema.parse(await this.#command("query-status")).status;
  }

  async #command(name: string, args: Record<string, unknown> = {}, timeoutMs?: number): Promise<unknown> {
    if (this.#qmp === null) throw new WrennError("engine_failed", { message: "QEMU's control socket is closed." });
    return this.#qmp.execute(name, args, timeoutMs);
  }

  #handleEvent(event: QmpEvent): void {
    switch (event.name) {
      case "SHUTDOWN":
      case "GUEST_PANICKED":
      case "STOP":
        this.#statusChanged();
        break;
      case "RESUME":
        this.#resumed.resolve();
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
    this.#vigil.background(async () => {
      do {
        this.#changed = false;
        await this.#checkStatus();
      } while (this.#changed);
      this.#checking = false;
    });
  }

  /** Asks QEMU whether the guest still runs, and reports its end if it does not. */
  async #checkStatus(): Promise<void> {
    await this.#freezing?.catch(() => undefined);
    if (this.#vigil.over || this.#qmp === null) return;
    try {
      const status = await this.#status();
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

  /** The connection alone proves nothing: the process decides. */
  async #awaitLoss(qmp: QmpClient): Promise<void> {
    await qmp.closed;
    if (this.#vigil.over) return;
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

  async #processGone(): Promise<void> {
    await this.#report("vm_died", "The virtual machine's process ended unexpectedly.");
  }

  async #report(code: VmEnd["code"], message: string): Promise<void> {
    this.#qmp?.close();
    await this.#vigil.report(code, message);
  }

  async #drainConsole(): Promise<void> {
    if (this.#vigil.over || this.#qmp === null) return;
    await this.#console.drain(this.#qmp);
  }

  #stopWatching(): void {
    this.#vigil.stop();
    this.#qmp?.close();
  }
}
