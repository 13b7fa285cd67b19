/**
 * Directories as streams, by this machine's own tar: it keeps names of any bytes, permissions and links, and unpacks what a
 * sandbox sends without being led out of the directory it unpacks to.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { WrennError } from "@wrenn/contract";
import { startPiped } from "@wrenn/system";

/** 64 KiB at a time, as much as a pipe holds; tar's own habit is 10 KiB. */
const blocking = "--blocking-factor=128";

export interface Archive {
  readonly pieces: AsyncIterable<Uint8Array>;
  /**
   * To be called once all of it has been read. Resolves with what tar has remarked, such as that a file changed meanwhile.
   * @throws WrennError `local_file_failed` when something could not be read: the archive then lacks it
   */
  finish(): Promise<string>;
  /** Nobody reads on. */
  abandon(): void;
}

/** @param names of entries of the directory, as the bytes they are; `.` is all of it */
export function pack(directory: string, names: readonly Buffer[]): Archive {
  const list = ["--null", "--verbatim-files-from", "--files-from=-"];
  const tar = startPiped(
    "tar",
    ["--create", "--format=gnu", "--sparse", blocking, `--directory=${directory}`, ...list],
    { env: plain() },
  );
  tar.stdin.on("error", () => undefined);
  tar.stdin.end(Buffer.concat(names.flatMap((name) => [name, Buffer.from([0])])));
  return {
    pieces: tar.stdout,
    finish: async () => {
      const { exitCode, stderr } = await tar.ended;
      // 1: it went on, and some file is not as it was when tar first looked.
      if (exitCode > 1) throw tarFailed(`${directory} could not be read in full`, stderr);
      return stderr.trim();
    },
    abandon: () => {
      tar.kill();
    },
  };
}

/**
 * Unpacks into a directory that exists. Permissions are as in the archive, without the bits that lend a file's owner to whoever
 * runs it; the owner is whoever runs this.
 */
export async function unpack(pieces: AsyncIterable<Uint8Array>, directory: string, signal: AbortSignal): Promise<void> {
  const args = ["--extract", blocking, "--no-same-owner", "--no-same-permissions", `--directory=${directory}`];
  const tar = startPiped("tar", args, { env: plain(), umask: 0 });
  tar.stdout.resume();
  try {
    await pipeline(Readable.from(pieces), tar.stdin, { signal });
  } catch (error) {
    // Tar has ended early, and says why.
    if (!(error instanceof Error && "code" in error && error.code === "EPIPE")) {
      tar.kill();
      throw error;
    }
  }
  const { exitCode, stderr } = await tar.ended;
  if (exitCode !== 0) throw tarFailed(`${directory} could not be written`, stderr);
}

function tarFailed(what: string, words: string): WrennError {
  return new WrennError("local_file_failed", { message: `${what}: ${words.trim()}` });
}

/** Without what the user's environment would have tar do or say differently. */
function plain(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"], LC_ALL: "C" };
}
