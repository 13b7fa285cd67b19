/** A running QEMU's console: a ring in its memory, which is emptied into a file on the host's disk. */
import type { SandboxLayout } from "@wrenn/system";
import { z } from "zod";
import { boundLog, ConsoleLog } from "../console-log.ts";
import { consoleChardev, consoleRingBytes } from "./command-line.ts";
import type { QmpClient } from "./qmp.ts";

export class ConsoleRing {
  readonly #log: ConsoleLog;
  readonly #engineLog: string;
  #draining: Promise<void> | null = null;

  constructor(files: Pick<SandboxLayout, "consoleLog" | "engineLog">) {
    this.#log = new ConsoleLog(files.consoleLog);
    this.#engineLog = files.engineLog;
  }

  /** Moves what the guest has printed into its file, or waits for the move that is under way: reading takes it out of the ring. */
  async drain(qmp: QmpClient): Promise<void> {
    this.#draining ??= this.#drainOnce(qmp);
    await this.#draining;
  }

  /** As `drain`, and nothing that the guest has printed before is left. */
  async drainAll(qmp: QmpClient): Promise<void> {
    await this.#draining;
    await this.drain(qmp);
  }

  async tail(): Promise<string> {
    return this.#log.tail();
  }

  async #drainOnce(qmp: QmpClient): Promise<void> {
    try {
      const args = { device: consoleChardev, size: consoleRingBytes, format: "base64" };
      const encoded = z.string().parse(await qmp.execute("ringbuf-read", args));
      await this.#log.append(Buffer.from(encoded, "base64"));
      await boundLog(this.#engineLog);
    } catch {
      // The console is a courtesy: a full disk or a dying engine must not stop the watch over the VM.
    } finally {
      this.#draining = null;
    }
  }
}
