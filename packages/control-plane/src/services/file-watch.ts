/** Watches a directory in a sandbox. Nothing is kept for a slow reader: the guest agent waits, and says when that lost changes. */
import { Code } from "@connectrpc/connect";
import { deadlines, errorFromGuest, filesystemErrors, filesystemProto, intervals, WrennError } from "@wrenn/contract";
import type { FileChange, GuestErrorMeanings, PathQuery } from "@wrenn/contract";
import { asUser } from "./guests.ts";
import type { Guest } from "./guests.ts";

const { EventType } = filesystemProto;

/** Something changed, or nothing did for a while. */
export type WatchNews = { readonly kind: "change"; readonly change: FileChange } | { readonly kind: "quiet" };

const changeTypes: Partial<Record<filesystemProto.EventType, FileChange["type"]>> = {
  [EventType.CREATE]: "create",
  [EventType.WRITE]: "write",
  [EventType.REMOVE]: "remove",
  [EventType.RENAME]: "rename",
  [EventType.CHMOD]: "chmod",
};

/** At the start, the guest's kernel may have no watches left; later, its queue of changes may be full. */
const startErrors: GuestErrorMeanings = { ...filesystemErrors, [Code.ResourceExhausted]: "guest_refused" };
const laterErrors: GuestErrorMeanings = { ...filesystemErrors, [Code.ResourceExhausted]: "watch_overflow" };

/**
 * Returns once the directory is watched. The news then end with an error only: that of the guest agent, `file_not_found` once the
 * directory is gone, or the reason that `ending` was aborted with.
 * @param ending ends the watch, also in the guest; it is aborted too when the guest has gone silent
 */
export async function watchDirectory(
  guest: Guest,
  { path, user, recursive }: PathQuery & { readonly recursive: boolean },
  ending: AbortController,
): Promise<AsyncGenerator<WatchNews, never>> {
  const seconds = String(intervals.watchKeepAlive / 1_000);
  const headers = { ...asUser(user), "keepalive-ping-interval": seconds };
  const answers = guest.filesystem.watchDir({ path, recursive }, { headers, signal: ending.signal });
  const messages = answers[Symbol.asyncIterator]();
  const first = await nextMessage(messages, ending, startErrors);
  if (first?.event.case !== "start") throw new WrennError("internal", { message: "The watch did not start." });
  return newsFrom(messages, ending);
}

async function* newsFrom(messages: Messages, ending: AbortController): AsyncGenerator<WatchNews, never> {
  try {
    for (;;) {
      const message = await nextMessage(messages, ending, laterErrors);
      if (message === null) throw new WrennError("file_not_found", { message: "The watched directory is gone." });
      if (message.event.case === "keepalive") yield { kind: "quiet" };
      if (message.event.case !== "filesystem") continue;
      const { name, type } = message.event.value;
      const changeType = changeTypes[type];
      if (changeType !== undefined) yield { kind: "change", change: { type: changeType, name } };
    }
  } finally {
    ending.abort();
  }
}

type Messages = AsyncIterator<filesystemProto.WatchDirResponse>;

/** Null at the end. */
async function nextMessage(
  messages: Messages,
  ending: AbortController,
  meanings: GuestErrorMeanings,
): Promise<filesystemProto.WatchDirResponse | null> {
  const silence = setTimeout(() => {
    ending.abort(new WrennError("guest_timeout"));
  }, deadlines.watchSilence);
  try {
    const next = await messages.next();
    return next.done === true ? null : next.value;
  } catch (error) {
    throw errorFromGuest(error, meanings);
  } finally {
    clearTimeout(silence);
  }
}
