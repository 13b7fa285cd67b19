/** Our standard input, handed on to a command: as fast as it takes it, and its end too. */
import { Buffer } from "node:buffer";
import { type ErrorCode, WrennError } from "@wrenn/contract";
import type { CommandHandle, TerminalHandle } from "@wrenn/sdk";

/** What a command answers that has ended or has closed its input: for it to judge, and no error of ours. */
const noLongerTaken: ReadonlySet<ErrorCode> = new Set(["process_not_found", "guest_refused"]);

/**
 * Forwards until the end of input, or until the command no longer takes it.
 * @throws whatever else ends the input early. The guest may or may not have taken the last piece, so that sending it again
 * could give the command the same bytes twice.
 */
export async function forwardInput(
  command: Pick<CommandHandle, "sendStdin" | "closeStdin"> | Pick<TerminalHandle, "sendInput">,
  input: AsyncIterable<Buffer | string> & { pause(): unknown } = process.stdin,
): Promise<void> {
  try {
    const send = async (bytes: Uint8Array): Promise<void> =>
      "sendInput" in command ? command.sendInput(bytes) : command.sendStdin(bytes);
    for await (const chunk of input) await send(Buffer.from(chunk));
    // A terminal's input ends with the terminal; the end of file in it is a character like any other.
    if ("closeStdin" in command) await command.closeStdin();
  } catch (error) {
    input.pause();
    if (!(error instanceof WrennError && noLongerTaken.has(error.code))) throw error;
  }
}

/** Makes our terminal the command's: every key is its own, and its size follows ours. Returns how to undo that. */
export function lendTerminal(command: TerminalHandle): () => void {
  const { stdin, stdout } = process;
  const resize = (): void => {
    // A resize that is lost is made up for by the next one.
    command.resize(stdout.columns, stdout.rows).catch(() => undefined);
  };
  if (stdin.isTTY) stdin.setRawMode(true);
  if (stdout.isTTY) stdout.on("resize", resize);
  return () => {
    if (stdin.isTTY) stdin.setRawMode(false);
    stdout.off("resize", resize);
  };
}

export function terminalSize(): { cols: number; rows: number } {
  return process.stdout.isTTY ? { cols: process.stdout.columns, rows: process.stdout.rows } : { cols: 80, rows: 24 };
}
