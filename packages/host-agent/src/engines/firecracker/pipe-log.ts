/**
 * What an engine prints into a named pipe, moved into a file on the host's disk. The engine keeps the pipe open itself and never waits for
 * it: what finds no room is dropped. So it fills no disk while there is no host agent, and a new one reads on where the last has stopped.
 */
import { constants, type FileHandle, open } from "node:fs/promises";
import { isMissingFile } from "@wrenn/system";

/** As much as a pipe holds (pipe(7)). */
const chunkBytes = 65_536;

/** How much is moved at once: an engine that prints without end must not keep the host agent. */
const maxChunks = 4;

export class PipeLog {
  readonly #pipe: FileHandle;
  readonly #append: (bytes: Buffer) => Promise<void>;
  #draining: Promise<void> | null = null;
  #closed = false;

  private constructor(pipe: FileHandle, append: (bytes: Buffer) => Promise<void>) {
    this.#pipe = pipe;
    this.#append = append;
  }

  /** Null when there is no such pipe. It is held open until `close`, so that the last words of an engine that ends stay in it. */
  static async open(file: string, append: (bytes: Buffer) => Promise<void>): Promise<PipeLog | null> {
    try {
      // Without waiting for a writer, and without following what is no pipe of ours.
      const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
      return new PipeLog(await open(file, flags), append);
    } catch (error) {
      if (isMissingFile(error)) return null;
      throw error;
    }
  }

  /** Moves what is in the pipe now, or waits for the move that is under way. */
  async drain(): Promise<void> {
    if (this.#closed) return;
    this.#draining ??= this.#drain();
    await this.#draining;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#draining;
    await this.#pipe.close();
  }

  async #drain(): Promise<void> {
    try {
      for (let chunk = 0; chunk < maxChunks; chunk++) {
        const { bytesRead, buffer } = await this.#pipe.read(Buffer.alloc(chunkBytes), 0, chunkBytes, null);
        if (bytesRead === 0) return;
        await this.#append(buffer.subarray(0, bytesRead));
      }
    } catch {
      // The pipe is empty (EAGAIN); or else, as with a full disk, a log is a courtesy that must not stop the watch over the VM.
    } finally {
      this.#draining = null;
    }
  }
}
