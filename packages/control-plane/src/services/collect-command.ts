/** A followed command whose output is collected until it ends. */
import { WrennError } from "@wrenn/contract";
import type { Exec, ExecResult } from "@wrenn/contract";
import { CapturedOutput } from "./captured-output.ts";
import type { FollowedProcess } from "./followed-process.ts";

/** Input and output at the same time: a command may write before it has read. */
export async function collect(command: FollowedProcess, ask: Exec, signal: AbortSignal): Promise<ExecResult> {
  const started = performance.now();
  const aborted = new Promise<never>((_resolve, reject) => {
    const fail = (): void => {
      reject(signal.reason);
    };
    if (signal.aborted) fail();
    signal.addEventListener("abort", fail, { once: true });
  });
  const stdout = new CapturedOutput(ask.max_output_bytes);
  const stderr = new CapturedOutput(ask.max_output_bytes);
  const ended = (async () => {
    for await (const event of command.events()) {
      if (event.kind === "end") return event.end;
      (event.channel === "stdout" ? stdout : stderr).push(event.bytes);
    }
    throw new WrennError("internal", { message: "A command that is waited for was left." });
  })();
  const failedInput = feed(command, Buffer.from(ask.stdin, ask.stdin_encoding === "base64" ? "base64" : "utf8"));
  const end = await Promise.race([ended, failedInput, aborted]);
  const [out, err] = [stdout.result(), stderr.result()];
  return {
    ...end,
    stdout: out.text,
    stdout_encoding: out.encoding,
    stdout_bytes: out.bytes,
    stdout_truncated: out.truncated,
    stderr: err.text,
    stderr_encoding: err.encoding,
    stderr_bytes: err.bytes,
    stderr_truncated: err.truncated,
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Never resolves: that a command has read everything, or will read no more, is not its end. */
async function feed(command: FollowedProcess, input: Buffer): Promise<never> {
  if (input.length > 0 && (await command.write(input))) await command.closeInput();
  return new Promise(() => undefined);
}
