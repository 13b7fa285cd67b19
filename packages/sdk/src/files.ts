/** Files in a sandbox: read, write, list, watch; whole directories as tar. */
import { filesystemErrors, WrennError } from "@wrenn/contract";
import type { BodySource } from "./bodies.ts";
import type { RequestOptions } from "./connection.ts";
import { failure } from "./errors.ts";
import { type FileEntry, toFileEntry } from "./file-entry.ts";
import { type ByteRange, download, upload } from "./file-transfer.ts";
import { type FileChangeListener, type FileWatch, watchDirectory, type WatchOptions } from "./file-watch.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { decodeText } from "./output.ts";

export interface FileOptions extends RequestOptions {
  /** At whose home relative paths begin, and whose the files are that are made; default the sandbox's default user. */
  user?: string | undefined;
}

export interface ReadOptions extends FileOptions {
  /** Only these bytes. */
  range?: ByteRange | undefined;
}

export interface ListOptions extends FileOptions {
  /** 1, the default: the directory's own entries; 2: those of its directories as well; up to 64. Links are not followed. */
  depth?: number | undefined;
}

/**
 * Paths are absolute, or relative to the user's home directory; `~` is that directory. Every method may throw SandboxNotFoundError,
 * ConnectionError, TimeoutError and AuthenticationError beside what it names.
 */
export class Files {
  readonly #guest: GuestConnection;

  /** Made by `Sandbox`. */
  constructor(guest: GuestConnection) {
    this.#guest = guest;
  }

  /**
   * A whole file as text. What is no UTF-8 is replaced: see `readBytes`.
   * @throws FileError `file_not_found`, `wrong_file_type` for a directory
   */
  async read(path: string, options: FileOptions = {}): Promise<string> {
    return decodeText(await this.readBytes(path, options));
  }

  /**
   * A whole file, or a range of it, in memory.
   * @throws FileError `file_not_found`, `wrong_file_type` for a directory, `range_not_satisfiable` for one that begins behind the
   * file's end
   */
  async readBytes(path: string, options: ReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await new Response(await this.readStream(path, options)).arrayBuffer());
  }

  /**
   * A file, or a range of it, as it arrives. Reading slowly slows the sandbox down; cancel what is not wanted to its end. The time
   * of a request counts for each piece.
   * @throws FileError as `readBytes`; the stream fails with ConnectionError `connection_lost` when it breaks off
   */
  async readStream(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return download(this.#guest, "/files", path, options);
  }

  /**
   * Writes a file, replacing what is there, and makes the directories that are missing. The file appears whole or not at all.
   * @throws FileError `wrong_file_type` when a directory is there, `guest_out_of_disk`, `file_access_denied`
   */
  async write(path: string, content: BodySource, options: FileOptions = {}): Promise<FileEntry> {
    const as = { contentType: "application/octet-stream", badRequest: "wrong_file_type" } as const;
    await upload(this.#guest, "/files", path, content, { ...options, ...as });
    return this.stat(path, options);
  }

  /**
   * What is in a directory, sorted by path.
   * @throws FileError `file_not_found`, `wrong_file_type` when it is no directory
   */
  async list(path: string, options: ListOptions = {}): Promise<FileEntry[]> {
    const { depth = 1 } = options;
    const { entries } = await this.#call(options, `listing ${path}`, (call) =>
      this.#guest.filesystem.listDir({ path, depth }, call),
    );
    return entries.map((entry) => toFileEntry(entry));
  }

  /** @throws FileError `file_not_found` */
  async stat(path: string, options: FileOptions = {}): Promise<FileEntry> {
    const { entry } = await this.#call(options, `looking at ${path}`, (call) =>
      this.#guest.filesystem.stat({ path }, call),
    );
    return described(entry);
  }

  /** Whether there is a file, a directory or anything else. */
  async exists(path: string, options: FileOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options);
      return true;
    } catch (error) {
      if (error instanceof WrennError && error.code === "file_not_found") return false;
      throw error;
    }
  }

  /**
   * Makes a directory, with those above it that are missing.
   * @returns false when it is there already
   * @throws FileError `wrong_file_type` when something else is there, `file_access_denied`
   */
  async makeDirectory(path: string, options: FileOptions = {}): Promise<boolean> {
    try {
      await this.#call(options, `making ${path}`, (call) => this.#guest.filesystem.makeDir({ path }, call));
      return true;
    } catch (error) {
      if (error instanceof WrennError && error.code === "file_exists") return false;
      throw error;
    }
  }

  /**
   * Renames a file or directory, replacing a file that is there, and makes the directories that are missing.
   * @returns what is now at the destination
   * @throws FileError `file_not_found`, `file_access_denied`
   */
  async move(source: string, destination: string, options: FileOptions = {}): Promise<FileEntry> {
    const { entry } = await this.#call(options, `moving ${source}`, (call) =>
      this.#guest.filesystem.move({ source, destination }, call),
    );
    return described(entry);
  }

  /** Removes a file, or a directory with all that is in it. That there is none is fine. */
  async remove(path: string, options: FileOptions = {}): Promise<void> {
    await this.#call(options, `removing ${path}`, (call) => this.#guest.filesystem.remove({ path }, call));
  }

  /**
   * Follows what changes in a directory, and resolves once it does: changes made from then on are handed out.
   * @throws FileError `file_not_found`, `wrong_file_type` when it is no directory
   */
  async watch(path: string, onChange: FileChangeListener, options: WatchOptions = {}): Promise<FileWatch> {
    return watchDirectory(this.#guest, path, onChange, options);
  }

  /**
   * A directory with all that is in it, as an uncompressed tar archive of relative paths.
   * @throws FileError `file_not_found`, `wrong_file_type` when it is no directory
   */
  async readArchive(path: string, options: FileOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return download(this.#guest, "/files/archive", path, options);
  }

  /**
   * Unpacks an uncompressed tar archive into a directory, which is made if need be.
   * @throws FileError `invalid_archive`, `guest_out_of_disk`, `wrong_file_type` when something else is there
   */
  async writeArchive(path: string, archive: BodySource, options: FileOptions = {}): Promise<void> {
    const as = { contentType: "application/x-tar", badRequest: "invalid_archive" } as const;
    try {
      await upload(this.#guest, "/files/archive", path, archive, { ...options, ...as });
    } catch (error) {
      // The guest agent refuses an archive that is none and a place that is no directory with the same status.
      const unclear = error instanceof WrennError && error.code === "invalid_archive";
      if (!unclear || !(await this.#isNoDirectory(path, options))) throw error;
      throw failure("wrong_file_type", { message: error.message });
    }
  }

  /** Whether something else is there. */
  async #isNoDirectory(path: string, options: FileOptions): Promise<boolean> {
    try {
      return (await this.stat(path, options)).type !== "directory";
    } catch {
      // What cannot be looked at is not known to be anything.
      return false;
    }
  }

  async #call<Answer>(
    options: FileOptions,
    what: string,
    send: (options: { signal: AbortSignal; headers: Headers }) => Promise<Answer>,
  ): Promise<Answer> {
    return this.#guest.call({ ...options, what, errors: filesystemErrors }, send);
  }
}

function described(entry: Parameters<typeof toFileEntry>[0] | undefined): FileEntry {
  if (entry === undefined) throw failure("internal", { message: "The guest agent described no file." });
  return toFileEntry(entry);
}
