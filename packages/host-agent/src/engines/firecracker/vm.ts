/** A running Firecracker: freezing it, and the ways it can end. The same for one just started and for one adopted. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { deadlines, type SandboxId, WrennError } from "@wrenn/contract";
import { isMissingFile, pollUntil, type ProcessIdentity, type SandboxLayout } from "@wrenn/system";
import type { CaptureName, VirtualMachine, VmEnd } from "../engine.ts";
import { hasRoomLeft } from "../room-left.ts";
import { panicReason, Vigil } from "../vigil.ts";
import { FirecrackerApi, type SnapshotToLoad } from "./api.ts";
import { findJail, type Jail, removeJail, takeOut, within } from "./jail.ts";
import { inJail } from "./machine.ts";
import { Output } from "./output.ts";

/** How often the console is emptied into its file, so that the last words of an engine that is killed are not lost. */
const drainIntervalMs = 2_000;

export class FirecrackerVm implements VirtualMachine {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #vigil: Vigil;
  readonly #files: SandboxLayout;
  readonly #api: FirecrackerApi;
  readonly #output: Output;
  readonly #jail: Jail;

  private constructor(identity: ProcessIdentity, files: SandboxLayout, jail: Jail, output: Output) {
    this.identity = identity;
    this.#files = files;
    this.#jail = jail;
    this.#api = new FirecrackerApi(files.jail.apiSocket);
    this.#output = output;
    this.#vigil = new Vigil(identity, () => output.consoleTail());
    this.ended = this.#vigil.ended;
  }

  /**
   * Watches over a Firecracker process that is starting, before it can be spoken to.
   * @param exited settles when the process ends, if this process is its parent
   */
  static watch(
    identity: ProcessIdentity,
    files: SandboxLayout,
    jail: Jail,
    output: Output,
    exited?: Promise<number>,
  ): FirecrackerVm {
    const vm = new FirecrackerVm(identity, files, jail, output);
    vm.#vigil.watchProcess(exited, () => vm.#processGone());
    vm.#vigil.every(drainIntervalMs, () => output.drain());
    return vm;
  }

  /**
   * Takes over one that has long been running.
   * @throws WrennError `engine_failed` when it does not answer, or is another VM's
   */
  static async adopt(identity: ProcessIdentity, files: SandboxLayout, id: SandboxId): Promise<FirecrackerVm> {
    const jail = await findJail(files.jail);
    const output = await Output.open(files);
    try {
      const instance = await new FirecrackerApi(files.jail.apiSocket).instance();
      if (instance.id !== id) {
        throw new WrennError("engine_failed", { message: `The engine says that it runs ${instance.id}, not ${id}.` });
      }
    } catch (error) {
      await output.close();
      throw error;
    }
    return FirecrackerVm.watch(identity, files, jail, output);
  }

  /** True when its process has gone, or is meant to. */
  get over(): boolean {
    return this.#vigil.over;
  }

  /**
   * Resolves when a guest that boots does, as its configuration says.
   * @throws WrennError `engine_failed`
   */
  async awaitBooting(signal: AbortSignal): Promise<void> {
    const look = async (): Promise<true | null> =>
      (await this.#api.instance(deadlines.engineLoad)).state === "Running" ? true : null;
    const running = await pollUntil(look, { timeoutMs: deadlines.engineLoad, intervalMs: 5, signal });
    if (running === null) throw new WrennError("engine_failed", { message: "Firecracker does not start its guest." });
  }

  /** Takes up a frozen state, and lets the guest run on. @throws WrennError `engine_failed` */
  async load(memory: SnapshotToLoad["mem_backend"]): Promise<void> {
    await this.#api.loadSnapshot({
      snapshot_path: inJail.deviceState,
      mem_backend: memory,
      track_dirty_pages: true,
      resume_vm: true,
    });
  }

  async drainConsole(): Promise<void> {
    await this.#output.drain();
  }

  async consoleTail(): Promise<string> {
    await this.#output.drain();
    return this.#output.consoleTail();
  }

  async freeze(): Promise<void> {
    await this.#api.setState("Paused");
  }

  async thaw(): Promise<void> {
    await this.#api.setState("Resumed");
  }

  async isFrozen(): Promise<boolean> {
    return (await this.#api.instance()).state === "Paused";
  }

  /**
   * Firecracker forgets which pages have changed as soon as it begins to write them. So what it writes is the changes since the parent only if
   * the parent is what it wrote last, or was started from; after anything else, such as a capture that failed, all of memory is written. Which
   * it was is in a file before the writing begins: that holds for the next host agent, too.
   */
  async writeState({ parent, id }: CaptureName): Promise<void> {
    const { jail, deviceState } = this.#files;
    const last = await this.#lastWritten();
    const changesKnown = last === null || last === parent;
    await writeFile(jail.lastWritten, id, { mode: 0o600 });
    try {
      await this.#api.createSnapshot({
        snapshot_type: changesKnown ? "Diff" : "Full",
        snapshot_path: inJail.writtenDevices,
        mem_file_path: inJail.writtenMemory,
      });
      await takeOut(this.#jail, inJail.writtenMemory, jail.writtenMemory);
      await takeOut(this.#jail, inJail.writtenDevices, deviceState);
    } catch (error) {
      const full = !(await hasRoomLeft(jail.directory));
      await this.#discardWritten();
      throw full ? new WrennError("host_out_of_disk", { cause: error }) : error;
    }
  }

  async kill(): Promise<void> {
    await this.#letGo();
    await this.#vigil.killProcess();
    await removeJail(this.#files.jail);
  }

  async detach(): Promise<void> {
    await this.#letGo();
  }

  /** Null when it has written nothing since it was started. */
  async #lastWritten(): Promise<string | null> {
    try {
      return await readFile(this.#files.jail.lastWritten, "utf8");
    } catch (error) {
      if (isMissingFile(error)) return null;
      throw error;
    }
  }

  async #discardWritten(): Promise<void> {
    const inRoot = [inJail.writtenMemory, inJail.writtenDevices].map((name) => within(this.#jail.root, name));
    for (const file of [...inRoot, this.#files.jail.writtenMemory, this.#files.deviceState]) {
      await rm(file, { recursive: true, force: true });
    }
  }

  async #letGo(): Promise<void> {
    await this.#output.drain();
    this.#vigil.stop();
    await this.#output.close();
  }

  /** Firecracker ends with its guest. What the guest and it said last tells why. */
  async #processGone(): Promise<void> {
    if (this.#vigil.over) return;
    await this.#output.drain();
    const console = await this.#output.consoleTail();
    if (console.includes("Kernel panic - not syncing")) {
      await this.#vigil.report("guest_panicked", `The guest's kernel panicked${panicReason(console)}.`);
    } else if (await this.#output.saysExitedWell()) {
      await this.#vigil.report("guest_powered_off", "The guest powered off or restarted itself.");
    } else {
      await this.#vigil.report("vm_died", "The virtual machine's process ended unexpectedly.");
    }
    await this.#output.close();
  }
}
