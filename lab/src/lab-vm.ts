/** One VM of the lab: started, watched until its command has ended, and ended in any case. */
import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { spawnError } from "@wrenn/system";
import { z } from "zod";
import { type Frame, FrameReader } from "./frames.ts";

/** What the supervisor is told at first; see lab/guest/supervisor.py. */
export interface GuestConfiguration {
  readonly command: readonly string[];
  readonly directory: string;
  readonly env: Readonly<Record<string, string>>;
  readonly mounts: readonly GuestMount[];
  readonly scratch: "xfs" | "ext4";
  readonly results: string | null;
}
export type GuestMount = { readonly path: string } & ({ readonly disk: string } | { readonly from: string });

export interface LabVmOptions {
  readonly qemu: string;
  /** Given the number of the channel's descriptor, and of the first of `inherited`. */
  readonly arguments: (channel: number, firstInherited: number) => string[];
  readonly inherited: readonly number[];
  readonly configuration: GuestConfiguration;
  readonly deadlineMs: number;
  /** The command is about to be started. */
  readonly onReady: () => void;
  readonly onOutput: (stream: "stdout" | "stderr", content: Buffer) => void;
  readonly onFiles: (archive: Buffer) => void;
  /** What the VM's kernel says of itself that casts doubt on everything that follows. */
  readonly onComplaint: (line: string) => void;
  readonly signal: AbortSignal;
}

/** How a command ended. */
export type Outcome =
  | { readonly how: "exited"; readonly code: number }
  | { readonly how: "killed"; readonly signal: number }
  | { readonly how: "late" };

/** The VM, and not the command in it, has failed. */
export class LabVmError extends Error {}

/** An emulated boot takes about 10 s alone; on a machine that others load, several times that. */
const bootMs = 300_000;
/** The supervisor gives a sign of life every five seconds, by its own clock. */
const silenceMs = 240_000;
/** For a command that is told to stop, and for bringing back what it has left. */
const stopMs = 60_000;
/** Enough of the console for a kernel's last words. */
const consoleBytes = 6_000;

const channelDescriptor = 3;

const complaint = /^\[ *[\d.]+\] (?:watchdog: |rcu: )?(?:BUG|WARNING|Oops|INFO|general protection fault)\b/;

const exitSchema = z.union([z.object({ code: z.int() }), z.object({ signal: z.int() })]);

/**
 * Runs one command in a VM of its own.
 * @throws LabVmError when the VM does not boot, hangs or panics; what the signal was aborted with
 */
export async function runInVm(options: LabVmOptions): Promise<Outcome> {
  options.signal.throwIfAborted();
  // The kernel ends it with this process, however that ends. In a session of its own, so that a Ctrl-C is for us.
  const child = spawn(
    "setpriv",
    ["--pdeathsig=KILL", options.qemu, ...options.arguments(channelDescriptor, channelDescriptor + 1)],
    { detached: true, cwd: "/", stdio: ["ignore", "pipe", "pipe", "pipe", ...options.inherited] },
  );
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    child.once("error", () => resolve());
  });
  try {
    return await new Watch(child, options).outcome;
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}

class Watch {
  readonly outcome: Promise<Outcome>;
  readonly #options: LabVmOptions;
  readonly #frames = new FrameReader();
  readonly #channel: Socket;
  readonly #began = performance.now();
  #resolve: (outcome: Outcome) => void = () => undefined;
  #reject: (error: Error) => void = () => undefined;
  #console = "";
  #words = "";
  #readyAt: number | null = null;
  #heardAt = 0;
  #stopped = false;

  constructor(child: ChildProcess, options: LabVmOptions) {
    this.#options = options;
    this.#channel = child.stdio[channelDescriptor] as Socket;
    const timer = setInterval(() => {
      this.#look();
    }, 1_000);
    const aborted = (): void => {
      this.#reject(options.signal.reason as Error);
    };
    options.signal.addEventListener("abort", aborted, { once: true });
    this.outcome = new Promise<Outcome>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    }).finally(() => {
      clearInterval(timer);
      options.signal.removeEventListener("abort", aborted);
    });
    child.once("error", (cause) => {
      this.#reject(spawnError("setpriv", cause));
    });
    child.once("close", () => {
      this.#fail("The VM ended before its command did.");
    });
    if (child.stdout === null || child.stderr === null) throw new Error("QEMU was started without its outputs");
    createInterface(child.stdout).on("line", (line) => {
      this.#console = `${this.#console}${line}\n`.slice(-consoleBytes);
      if (complaint.test(line)) options.onComplaint(line);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#words = (this.#words + text).slice(-consoleBytes);
    });
    this.#channel.on("data", (piece: Buffer) => {
      this.#receive(piece);
    });
    // It breaks when QEMU ends, which is reported as that.
    this.#channel.on("error", () => undefined);
    this.#channel.write(`${JSON.stringify({ ...options.configuration, time: Date.now() / 1_000 })}\n`);
  }

  #receive(piece: Buffer): void {
    this.#heardAt = performance.now();
    try {
      for (const frame of this.#frames.read(piece)) this.#act(frame);
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  #act({ kind, content }: Frame): void {
    switch (kind) {
      case "ready":
        this.#readyAt = performance.now();
        this.#options.onReady();
        return;
      case "stdout":
      case "stderr":
        this.#options.onOutput(kind, content);
        return;
      case "files":
        this.#options.onFiles(content);
        return;
      case "exit": {
        const exit = exitSchema.parse(JSON.parse(content.toString()));
        if (this.#stopped) this.#resolve({ how: "late" });
        else if ("code" in exit) this.#resolve({ how: "exited", code: exit.code });
        else this.#resolve({ how: "killed", signal: exit.signal });
        return;
      }
      case "heartbeat":
        return;
      default:
        kind satisfies never;
    }
  }

  #look(): void {
    const now = performance.now();
    if (this.#readyAt === null) {
      if (now - this.#began > bootMs) this.#fail(`The VM has not booted within ${bootMs / 1_000} s.`);
      return;
    }
    const late = now - this.#readyAt - this.#options.deadlineMs;
    if (late > stopMs) this.#resolve({ how: "late" });
    else if (late > 0 && !this.#stopped) {
      this.#stopped = true;
      this.#channel.write(`${JSON.stringify({ stop: true })}\n`);
    }
    const silent = this.#heardAt;
    if (now - silent < silenceMs) return;
    // What has arrived while this process was kept from reading, as by a slow reader of its output, is read before it is judged.
    setTimeout(() => {
      if (this.#heardAt === silent) this.#fail(`The VM hangs: nothing was heard of it for ${silenceMs / 1_000} s.`);
    }, 1_000);
  }

  #fail(what: string): void {
    const parts = [what];
    if (this.#words.trim() !== "") parts.push(`QEMU said:\n${this.#words.trim()}`);
    if (this.#console.trim() !== "") parts.push(`The end of its console:\n${this.#console.trim()}`);
    this.#reject(new LabVmError(parts.join("\n")));
  }
}
