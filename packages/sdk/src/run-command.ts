/** A command run to its end: input handed on, output collected, killed when its caller gives up. */
import { deadlines, execLimits, WrennError } from "@wrenn/contract";
import { type BodySource, streamOf } from "./bodies.ts";
import { type CallSignal, withLimits } from "./call-signal.ts";
import { CommandHandle } from "./command-handle.ts";
import { type CommandLine, processConfig, type ProcessOptions } from "./command-line.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { CollectedOutput, decodeText, listenWith, type OutputListener } from "./output.ts";
import { type CommandResult, ProcessStream } from "./process-stream.ts";

export interface RunOptions extends ProcessOptions {
  /** What the command reads; default nothing. A stream is read as fast as the command reads. */
  stdin?: BodySource | undefined;
  onStdout?: OutputListener | undefined;
  onStderr?: OutputListener | undefined;
  /** Bytes kept of each of standard output and standard error; default 16 MiB. What is beyond goes to the listeners only. */
  maxOutputBytes?: number | undefined;
  /** Kills the command with all its children; `run` then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface CommandOutput extends CommandResult {
  /** As text; what is no UTF-8 is replaced. */
  stdout: string;
  stderr: string;
  /** As the command wrote it. */
  stdoutBytes: Uint8Array<ArrayBuffer>;
  stderrBytes: Uint8Array<ArrayBuffer>;
  /** True when there was more than `maxOutputBytes`: what is here is the beginning. */
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  /** True when the connection broke and was made again: output of the time in between may be missing. */
  outputIncomplete: boolean;
}

/** How much later than the guest's own deadline this side gives up, should the guest have stopped answering. */
const timeoutGraceMs = 10_000;

export async function runCommand(
  guest: GuestConnection,
  command: CommandLine,
  options: RunOptions,
): Promise<CommandOutput> {
  const { stdin, timeoutMs, maxOutputBytes = execLimits.outputBytes.max } = options;
  const collected = { stdout: new CollectedOutput(maxOutputBytes), stderr: new CollectedOutput(maxOutputBytes) };
  let outputIncomplete = false;
  const request = { process: processConfig(command, options), stdin: stdin !== undefined };
  const input = stdin === undefined ? null : streamOf(stdin).getReader();
  const limits = {
    signal: options.signal,
    timeoutMs: timeoutMs === undefined ? undefined : timeoutMs + timeoutGraceMs,
    what: "the command",
  };
  try {
    const result = await withLimits(limits, async (call) => {
      const listener = listenWith({
        onStdout: collecting(collected.stdout, options.onStdout, call),
        onStderr: collecting(collected.stderr, options.onStderr, call),
        onReconnect: () => (outputIncomplete = true),
      });
      const { signal } = call;
      const process = await ProcessStream.start(guest, request, listener, { ...options, signal });
      return untilEnd(new CommandHandle(guest, process, { tag: null, signal }), input);
    });
    return { ...result, ...asOutput(collected), outputIncomplete };
  } finally {
    // What is left is for nobody, and how its source takes that is none of the command's business.
    input?.cancel().catch(() => undefined);
  }
}

/** Listens and keeps. The time of the call is the guest's, and does not count while the caller's listener is busy. */
function collecting(output: CollectedOutput, listener: OutputListener | undefined, call: CallSignal): OutputListener {
  return async (bytes, text) => {
    output.add(bytes);
    if (listener === undefined) return;
    call.lift();
    await listener(bytes, text);
    call.restart();
  };
}

function asOutput({ stdout, stderr }: { stdout: CollectedOutput; stderr: CollectedOutput }) {
  const [stdoutBytes, stderrBytes] = [stdout.bytes(), stderr.bytes()];
  return {
    stdout: decodeText(stdoutBytes),
    stderr: decodeText(stderrBytes),
    stdoutBytes,
    stderrBytes,
    stdoutTruncated: stdout.truncated,
    stderrTruncated: stderr.truncated,
  };
}

type Input = ReadableStreamDefaultReader<Uint8Array>;

/** The command's end. Whatever else this ends with, the command has been killed, unless the sandbox was paused. */
async function untilEnd(handle: CommandHandle, input: Input | null): Promise<CommandResult> {
  const inputFailed = new Promise<never>((_resolve, reject) => {
    // The command would wait for the rest of its input for ever.
    if (input !== null) handOn(handle, input).catch(reject);
  });
  try {
    return await Promise.race([handle.wait(), inputFailed]);
  } catch (error) {
    // It stands still with the sandbox, and goes on with it.
    if (error instanceof WrennError && error.code === "sandbox_paused") throw error;
    await handle.kill("SIGKILL", { requestTimeoutMs: deadlines.commandInterrupt }).catch(() => {
      // Nobody can be reached to kill it. What is told is why it should have been.
    });
    throw error;
  }
}

/** What a command answers that has ended or has closed its input: it wants no more, which is its own decision. */
const noLongerTaken: ReadonlySet<string> = new Set(["process_not_found", "guest_refused"]);

async function handOn(handle: CommandHandle, input: Input): Promise<void> {
  try {
    for (let next = await input.read(); !next.done; next = await input.read()) await handle.sendStdin(next.value);
    await handle.closeStdin();
  } catch (error) {
    if (!(error instanceof WrennError && noLongerTaken.has(error.code))) throw error;
  }
}
