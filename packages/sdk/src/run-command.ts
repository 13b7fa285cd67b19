/** A command run to its end: input handed on, output collected, killed when its caller gives up. */
import { deadlines, execLimits, WrennError } from "@wrenn/contract";
import { type BodySource, streamOf } from "./bodies.ts";
import { withLimits } from "./call-signal.ts";
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
  const { stdin, maxOutputBytes = execLimits.outputBytes.max } = options;
  const stdout = new CollectedOutput(maxOutputBytes);
  const stderr = new CollectedOutput(maxOutputBytes);
  let outputIncomplete = false;
  const listener = listenWith({
    onStdout: collecting(stdout, options.onStdout),
    onStderr: collecting(stderr, options.onStderr),
    onReconnect: () => (outputIncomplete = true),
  });
  const request = { process: processConfig(command, options), stdin: stdin !== undefined };
  const limits = {
    signal: options.signal,
    timeoutMs: options.timeoutMs === undefined ? undefined : options.timeoutMs + timeoutGraceMs,
    what: "the command",
  };
  const result = await withLimits(limits, async ({ signal }) => {
    const process = await ProcessStream.start(guest, request, listener, { ...options, signal });
    return untilEnd(new CommandHandle(guest, process, { tag: null, signal }), stdin);
  });
  const [stdoutBytes, stderrBytes] = [stdout.bytes(), stderr.bytes()];
  return {
    ...result,
    stdout: decodeText(stdoutBytes),
    stderr: decodeText(stderrBytes),
    stdoutBytes,
    stderrBytes,
    stdoutTruncated: stdout.truncated,
    stderrTruncated: stderr.truncated,
    outputIncomplete,
  };
}

function collecting(collected: CollectedOutput, listener: OutputListener | undefined): OutputListener {
  return (bytes, text) => {
    collected.add(bytes);
    return listener?.(bytes, text);
  };
}

/** The command's end. Whatever else this ends with, the command has been killed. */
async function untilEnd(handle: CommandHandle, stdin: RunOptions["stdin"]): Promise<CommandResult> {
  const input = stdin === undefined ? null : streamOf(stdin).getReader();
  const inputFailed = new Promise<never>((_resolve, reject) => {
    // The command would wait for the rest of its input for ever.
    if (input !== null) handOn(handle, input).catch(reject);
  });
  try {
    return await Promise.race([handle.wait(), inputFailed]);
  } catch (error) {
    await handle.kill("SIGKILL", { requestTimeoutMs: deadlines.commandInterrupt }).catch(() => {
      // Nobody can be reached to kill it. What is told is why it should have been.
    });
    throw error;
  } finally {
    // What is left is for nobody, and how its source takes that is none of the command's business.
    input?.cancel().catch(() => undefined);
  }
}

/** What a command answers that has ended or has closed its input: it wants no more, which is its own decision. */
const noLongerTaken: ReadonlySet<string> = new Set(["process_not_found", "guest_refused"]);

async function handOn(handle: CommandHandle, input: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    for (let next = await input.read(); !next.done; next = await input.read()) await handle.sendStdin(next.value);
    await handle.closeStdin();
  } catch (error) {
    if (!(error instanceof WrennError && noLongerTaken.has(error.code))) throw error;
  }
}
