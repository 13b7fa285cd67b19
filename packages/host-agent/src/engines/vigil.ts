/** The watch over an engine's process, whichever program it is: how a VM's end is noticed and told, once. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { isAlive, type ProcessIdentity, signalProcess, waitForExit } from "@wrenn/system";
import { deferred } from "../deferred.ts";
import type { VmEnd } from "./engine.ts";

/** How often an adopted engine's process, whose exit the kernel tells only its parent, is looked at. */
const aliveIntervalMs = 1_000;

/** How soon background work that failed is tried again. */
const retryIntervalMs = 1_000;

export class Vigil {
  readonly ended: Promise<VmEnd>;
  readonly #end = deferred<VmEnd>();
  readonly #identity: ProcessIdentity;
  readonly #consoleTail: () => Promise<string>;
  #over = false;

  /** @param consoleTail the last that is known of the guest's console */
  constructor(identity: ProcessIdentity, consoleTail: () => Promise<string>) {
    this.#identity = identity;
    this.#consoleTail = consoleTail;
    this.ended = this.#end.promise;
  }

  /** True when the end is known, or wanted: nothing is reported after it. */
  get over(): boolean {
    return this.#over;
  }

  /**
   * Calls back when the process has gone.
   * @param exited settles then, if this process is its parent
   */
  watchProcess(exited: Promise<number> | undefined, gone: () => Promise<void>): void {
    if (exited === undefined) {
      this.every(aliveIntervalMs, async () => {
        if (!(await isAlive(this.#identity))) await gone();
      });
      return;
    }
    this.background(async () => {
      await exited;
      await gone();
    });
  }

  every(intervalMs: number, work: () => Promise<void>): void {
    this.background(async () => {
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
  background(work: () => Promise<void>): void {
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

  async report(code: VmEnd["code"], message: string): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#end.resolve({ code, message, at: new Date(), consoleTail: await this.#lastWords() });
  }

  stop(): void {
    this.#over = true;
  }

  /** Ends the process at once and waits until it is gone. @throws WrennError `engine_failed` when it does not go */
  async killProcess(): Promise<void> {
    await signalProcess(this.#identity, "SIGKILL");
    if (await waitForExit(this.#identity, deadlines.engineQuit)) return;
    throw new WrennError("engine_failed", {
      message: `The engine (pid ${this.#identity.pid}) did not end within ${deadlines.engineQuit} ms of being killed.`,
    });
  }

  async #lastWords(): Promise<string> {
    try {
      return await this.#consoleTail();
    } catch {
      return "";
    }
  }
}

/** `: VFS: Unable to mount root fs` out of `Kernel panic - not syncing: VFS: …`, or nothing. */
export function panicReason(console: string): string {
  const reason = /Kernel panic - not syncing: (?<reason>[^\n]+)/.exec(console)?.groups?.["reason"];
  return reason === undefined ? "" : `: ${reason.trim()}`;
}
