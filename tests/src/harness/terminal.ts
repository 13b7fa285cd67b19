/** The command line on a terminal, as a person has it: what is typed, what is shown, its size. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { constants } from "node:os";
import path from "node:path";
import type { Readable, Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { cliEntry, repositoryRoot } from "@wrenn/cli";
import { pollUntil } from "@wrenn/system";

export interface TerminalResult {
  exitCode: number | null;
  /** Number of the signal that ended it. */
  signal: number | null;
  /** Whether the terminal has the modes that it had before: it echoes, takes lines, Ctrl-C is a signal. */
  restored: boolean;
}

/** Compiled files lie elsewhere than this one, which the compiler does not copy. */
const script = path.join(repositoryRoot, "tests/src/harness/pseudo-terminal.py");

export class Terminal {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #result: Promise<TerminalResult>;
  #shown = "";

  constructor(
    args: readonly string[],
    options: { env: NodeJS.ProcessEnv; cols?: number; rows?: number; program?: readonly string[] },
  ) {
    const { cols = 80, rows = 24, program = [process.execPath, cliEntry] } = options;
    this.#child = spawn("python3", [script, String(cols), String(rows), ...program, ...args], {
      env: { TERM: "xterm-256color", ...options.env },
      cwd: "/",
      stdio: ["pipe", "pipe", "pipe"],
    });
    let report = "";
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => (this.#shown += text));
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => (report += text));
    this.#child.stdin.on("error", () => undefined);
    this.#result = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("close", () => {
        try {
          resolve(JSON.parse(report) as TerminalResult);
        } catch {
          reject(new Error(`the terminal broke: ${report}`));
        }
      });
    });
  }

  /** All that it has shown, control sequences included. */
  get shown(): string {
    return this.#shown;
  }

  type(text: string): void {
    this.#send({ type: Buffer.from(text).toString("base64") });
  }

  resize(cols: number, rows: number): void {
    this.#send({ resize: [cols, rows] });
  }

  /** To the command line itself. */
  signal(name: NodeJS.Signals): void {
    this.#send({ signal: constants.signals[name] });
  }

  /** Waits until it has shown that, behind the first `from` characters. */
  async untilShown(expected: string | RegExp, from = 0): Promise<void> {
    const isThere = (): boolean => {
      const text = this.#shown.slice(from);
      return typeof expected === "string" ? text.includes(expected) : expected.test(text);
    };
    const found = await pollUntil(() => Promise.resolve(isThere() ? true : null), {
      timeoutMs: 60_000,
      intervalMs: 20,
    });
    if (found === null)
      throw new Error(`the terminal does not show ${String(expected)}, but ${JSON.stringify(this.#shown)}`);
  }

  /** Waits until a shell is ready for a line. */
  async untilPrompt(): Promise<void> {
    const isThere = (): boolean => /[$#] $/.test(stripVTControlCharacters(this.#shown));
    const found = await pollUntil(() => Promise.resolve(isThere() ? true : null), {
      timeoutMs: 60_000,
      intervalMs: 20,
    });
    if (found === null) throw new Error(`the terminal shows no prompt, but ${JSON.stringify(this.#shown)}`);
  }

  result(): Promise<TerminalResult> {
    return this.#result;
  }

  /** Ends it, whatever it does. */
  kill(): void {
    this.#send({ signal: constants.signals.SIGKILL });
    this.#child.stdin.end();
  }

  #send(request: object): void {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
  }
}
