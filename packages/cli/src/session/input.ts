/** Our standard input, handed on to a command: as fast as it takes it, and its end too. */
import { Buffer } from "node:buffer";
import { type ErrorCode, WrennError } from "@wrenn/contract";

/** Where input goes. */
export interface InputSink {
  write(bytes: Uint8Array): Promise<void>;
  /** The command reads end of file. A terminal has none: there it is a character like any other. */
  end?(): Promise<void>;
}

/** What a command answers that has ended or has closed its input: for it to judge, and no error of ours. */
const noLongerTaken: ReadonlySet<ErrorCode> = new Set(["process_not_found", "guest_refused"]);

/**
 * Forwards until the end of input, or until the command no longer takes it.
 * @throws whatever else ends the input early. The guest may or may not have taken the last piece, so that sending it again
 * could give the command the same bytes twice.
 */
export async function forwardInput(
  sink: InputSink,
  input: AsyncIterable<Buffer | string> & { pause(): unknown } = process.stdin,
): Promise<void> {
  try {
    for await (const chunk of input) {
      await sink.write(Buffer.from(chunk));
    }
    await sink.end?.();
  } catch (error) {
    input.pause();
    if (!(error instanceof WrennError && noLongerTaken.has(error.code))) throw error;
  }
}
