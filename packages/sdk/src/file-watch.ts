/** Following what changes in a directory. */
import { Code } from "@connectrpc/connect";
import { type FileChange, filesystemErrors, filesystemProto, type GuestErrorMeanings } from "@wrenn/contract";
import { CallSignal, untilAborted, withLimits } from "./call-signal.ts";
import type { FileOptions } from "./files.ts";
import { ConnectionError, failure } from "./errors.ts";
import { EventStream } from "./event-stream.ts";
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
   * Rejects when changes may have been missed, so that the directory is to be looked at and watched again: with ConnectionError
   * `connection_lost` when the connection broke, with FileError `watch_overflow` when more changed than could be told; and with why the
   * sandbox no longer runs: ConflictError `sandbox_paused`, GuestError, SandboxNotFoundError. Rejects also with what the listener
   * threw, and with the reason of the signal.
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

type WatchEvents = EventStream<filesystemProto.WatchDirResponse>;

/** Resolves once the directory is watched: changes made from then on are handed out. */
export async function watchDirectory(
  guest: GuestConnection,
  path: string,
  onChange: FileChangeListener,
  options: WatchOptions,
): Promise<FileWatch> {
  const { signal, recursive = false } = options;
  const limits = { signal, timeoutMs: guest.connection.timeoutMs(options), what: `watching ${path}` };
  return withLimits(limits, async (opening) => {
    const events = new EventStream(userHeaders(options.user), (call) =>
      guest.filesystem.watchDir({ path, recursive }, call),
    );
    try {
      const first = await untilAborted(events.next(), opening.signal);
      if (first.done === true || first.value.event.case !== "start") throw new Error("the watch did not begin");
    } catch (error) {
      events.close();
      throw guestFailure(error, filesystemErrors);
    }
    const watching = new AbortController();
    const closed = follow(guest, events, onChange, { stopped: watching.signal, callersSignal: signal });
    // Whoever waits is told; that nobody does is no error.
    closed.catch(() => undefined);
    return { closed, stop: () => watching.abort() };
  });
}

async function follow(
  guest: GuestConnection,
  events: WatchEvents,
  onChange: FileChangeListener,
  { stopped, callersSignal }: { stopped: AbortSignal; callersSignal: AbortSignal | undefined },
): Promise<"stopped" | "removed"> {
  const following = new CallSignal({ signal: callersSignal, what: "a watch" });
  const { signal } = following;
  const unlessOver = async <Value>(promise: Promise<Value>): Promise<Value> =>
    untilAborted(untilAborted(promise, stopped), signal);
  try {
    for (;;) {
      const next = await unlessOver(nextEvent(guest, events, signal));
      if (next.done === true) return "removed";
      const change = toChange(next.value);
      if (change !== null) await unlessOver((async () => onChange(change))());
    }
  } catch (error) {
    if (stopped.aborted) return "stopped";
    throw following.explain(error);
  } finally {
    events.close();
    following.release();
  }
}

function toChange({ event }: filesystemProto.WatchDirResponse): FileChange | null {
  if (event.case !== "filesystem") return null;
  const type = changeTypes[event.value.type];
  return type === null ? null : { type, name: event.value.name };
}

/** What the guest agent's codes mean once it watches. */
const laterErrors: GuestErrorMeanings = { ...filesystemErrors, [Code.ResourceExhausted]: "watch_overflow" };

async function nextEvent(
  guest: GuestConnection,
  events: WatchEvents,
  signal: AbortSignal,
): ReturnType<WatchEvents["next"]> {
  try {
    return await events.next();
  } catch (thrown) {
    const error = await guest.explainLoss(guestFailure(thrown, laterErrors), signal);
    if (!(error instanceof ConnectionError)) throw error;
    throw failure("connection_lost", {
      message: "The connection to the watch broke; changes may have been missed.",
      suggestion: "Watch the directory again, and look at what is in it.",
      cause: error,
    });
  }
}
