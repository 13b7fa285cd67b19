/** The command line as a user runs it: a process with its own input, output, signals and exit code. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { cliEntry } from "@wrenn/cli";
import { pollUntil } from "@wrenn/system";

export interface CliResult {
  /** Null when a signal ended the process. */
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: string;
}

export interface CliOptions {
  env: NodeJS.ProcessEnv;
  /** Written to its input, which is then closed; without it, the input is /dev/null. */
  input?: Buffer | string;
  cwd?: string;
}

export class CliProcess {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #stdout: Buffer[] = [];
  readonly #result: Promise<CliResult>;
  #stderr = "";

  /** Its standard input is a pipe that stays open until `child.stdin` is ended. */
  constructor(args: readonly string[], options: CliOptions) {
    this.child = spawn(process.execPath, [cliEntry, ...args], {
      env: options.env,
      cwd: options.cwd ?? "/",
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.child.stdout.on("data", (chunk: Buffer) => this.#stdout.push(chunk));
    this.child.stderr.setEncoding("utf8");
    this.child.stderr.on("data", (text: string) => (this.#stderr += text));
    // The process may end without having read its input.
    this.child.stdin.on("error", () => undefined);
    this.#result = new Promise((resolve, reject) => {
      this.child.once("error", reject);
      this.child.once("close", (exitCode, signal) => {
        resolve({ exitCode, signal, stdout: Buffer.concat(this.#stdout), stderr: this.#stderr });
      });
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error("the command line was not started");
    return this.child.pid;
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString("utf8");
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Waits until it has written that. */
  async untilWritten(words: string, where: "stdout" | "stderr" = "stdout"): Promise<void> {
    const written = await pollUntil(() => Promise.resolve(this[where].includes(words) ? true : null), {
      timeoutMs: 60_000,
      intervalMs: 20,
    });
    if (written === null) throw new Error(`"${words}" was not written, but: ${this.stdout}${this.stderr}`);
  }

  result(): Promise<CliResult> {
    return this.#result;
  }
}

/** Runs the command line to its end. */
export async function runCli(args: readonly string[], options: CliOptions): Promise<CliResult> {
  const cli = new CliProcess(args, options);
  cli.child.stdin.end(options.input ?? "");
  return cli.result();
}
