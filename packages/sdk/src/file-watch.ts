/** Following what changes in a directory. */
import type { FileChange } from "@wrenn/contract";
import { filesystemErrors, filesystemProto } from "@wrenn/contract";
import { CallSignal, untilAborted, withLimits } from "./call-signal.ts";
import type { FileOptions } from "./files.ts";
import { failure } from "./errors.ts";
import { type GuestConnection, guestFailure, userHeaders } from "./guest-connection.ts";

export type { FileChange } from "@wrenn/contract";

export interface WatchOptions extends FileOptions {
  /** Directories below as well, also those made later; default false. */
  recursive?: boolean | undefined;
}

/** Called with one change at a time: what it returns is awaited before the next. */
export type FileChangeListener = (change: FileChange) => void | Promise<void>;

export interface FileWatch {
  /**
   * Resolves when the watch is over: `stopped` by its owner, or because the directory was `removed`.
   * Rejects with ConnectionError `connection_lost` when the connection broke, so that changes may have been missed: watch again
   * and look at the directory; with what the listener threw; with the reason of the signal.
   */
  readonly closed: Promise<"stopped" | "removed">;
  /** Ends the watch. No change is handed out afterwards. */
  stop(): void;
}

const changeTypes: Record<filesystemProto.EventType, FileChange["type"] | null> = {
  [filesystemProto.EventType.UNSPECIFIED]: null,
  [filesystemProto.EventType.CREATE]: "create",
  [filesystemProto.EventType.WRITE]: "write",
  [filesystemProto.EventType.REMOVE]: "remove",
  [filesystemProto.EventType.RENAME]: "rename",
  [filesystemProto.EventType.CHMOD]: "chmod",
};

/** Seconds. Below the five minutes of silence after which HTTP clients and proxies give up on a stream. */
const keepalivePingSeconds = 50;

type WatchEvents = AsyncIterator<filesystemProto.WatchDirResponse>;

/** Resolves once the directory is watched: changes made from then on are handed out. */
export async function watchDirectory(
  guest: GuestConnection,
  path: string,
  onChange: FileChangeListener,
  options: WatchOptions,
): Promise<FileWatch> {
  const headers = userHeaders(options.user);
  headers.set("keepalive-ping-interval", String(keepalivePingSeconds));
  const stream = new AbortController();
  const request = { path, recursive: options.recursive ?? false };
  const events = guest.filesystem.watchDir(request, { headers, signal: stream.signal })[Symbol.asyncIterator]();
  const limits = { signal: options.signal, timeoutMs: guest.connection.timeoutMs(options), what: `watching ${path}` };
  try {
    await withLimits(limits, async ({ signal }) => {
      const first = await untilAborted(events.next(), signal);
      if (first.done === true || first.value.event.case !== "start") throw new Error("the watch did not begin");
    });
  } catch (error) {
    stream.abort();
    if (options.signal?.aborted === true) throw error;
    throw guestFailure(error, filesystemErrors);
  }
  const closed = follow(events, stream, onChange, options.signal);
  // Whoever waits for it is told; that nobody does is no error.
  closed.catch(() => undefined);
  return { closed, stop: () => stream.abort(stopped) };
}

/** Why a watch's stream was aborted, where its owner did. */
const stopped = Symbol("stopped");

async function follow(
  events: WatchEvents,
  stream: AbortController,
  onChange: FileChangeListener,
  callersSignal: AbortSignal | undefined,
): Promise<"stopped" | "removed"> {
  const following = new CallSignal({ signal: callersSignal, what: "a watch" });
  const abort = (): void => stream.abort(following.signal.reason);
  following.signal.addEventListener("abort", abort, { once: true });
  if (following.signal.aborted) abort();
  try {
    for (;;) {
      const next = await untilAborted(nextEvent(events), stream.signal);
      if (next.done === true) return "removed";
      const { event } = next.value;
      const type = event.case === "filesystem" ? changeTypes[event.value.type] : null;
      if (event.case === "filesystem" && type !== null) {
        await untilAborted(Promise.resolve(onChange({ type, name: event.value.name })), stream.signal);
      }
    }
  } catch (error) {
    if (stream.signal.reason === stopped) return "stopped";
    throw following.explain(error);
  } finally {
    stream.abort(stopped);
    following.release();
  }
}

async function nextEvent(events: WatchEvents): ReturnType<WatchEvents["next"]> {
  try {
    return await events.next();
  } catch (error) {
    throw failure("connection_lost", {
      message: "The connection to the watch broke; changes may have been missed.",
      suggestion: "Watch the directory again, and look at what is in it.",
      cause: guestFailure(error),
    });
  }
}
