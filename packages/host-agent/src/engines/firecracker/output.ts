/** What a running Firecracker prints: its guest's console, and its own log. */
import { appendFile } from "node:fs/promises";
import type { SandboxLayout } from "@wrenn/system";
import { boundLog, ConsoleLog, readEnd } from "../console-log.ts";
import { PipeLog } from "./pipe-log.ts";

/** Its last line. */
const lastWordsBytes = 300;

export class Output {
  readonly #console: ConsoleLog;
  readonly #engineLog: string;
  readonly #pipes: readonly PipeLog[];

  private constructor(console: ConsoleLog, engineLog: string, pipes: readonly PipeLog[]) {
    this.#console = console;
    this.#engineLog = engineLog;
    this.#pipes = pipes;
  }

  static async open({ consoleLog, engineLog, jail }: SandboxLayout): Promise<Output> {
    const console = new ConsoleLog(consoleLog);
    const pipes = await Promise.all([
      PipeLog.open(jail.console, (bytes) => console.append(bytes)),
      PipeLog.open(jail.log, async (bytes) => {
        await appendFile(engineLog, bytes);
        await boundLog(engineLog);
      }),
    ]);
    return new Output(
      console,
      engineLog,
      pipes.filter((pipe) => pipe !== null),
    );
  }

  /** Sees to it that all that was printed until now is in the files. */
  async drain(): Promise<void> {
    for (const pipe of this.#pipes) await pipe.drain();
  }

  async consoleTail(): Promise<string> {
    return this.#console.tail();
  }

  /** Whether Firecracker has ended because its guest did: the exit code alone is known to its parent only. */
  async saysExitedWell(): Promise<boolean> {
    return (await readEnd(this.#engineLog, lastWordsBytes)).toString().trimEnd().endsWith("exit_code=0");
  }

  async close(): Promise<void> {
    for (const pipe of this.#pipes) await pipe.close();
  }
}
