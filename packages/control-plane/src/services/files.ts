/** Files in a sandbox: what is there, and making, moving and removing it. Paths are resolved and checked by the guest agent. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { deadlines, errorFromGuest, filesystemErrors, filesystemProto, WrennError } from "@wrenn/contract";
import type { FileEntry, FileType, GuestErrorMeanings, PathQuery } from "@wrenn/contract";
import { asUser } from "./guests.ts";
import type { Guest } from "./guests.ts";

const { FileType: GuestFileType } = filesystemProto;

/** Pipes, sockets and devices have no type there. */
const fileTypes: Partial<Record<filesystemProto.FileType, FileType>> = {
  [GuestFileType.FILE]: "file",
  [GuestFileType.DIRECTORY]: "directory",
  [GuestFileType.SYMLINK]: "symlink",
};

/** What a time can be that is written with a year of four digits. */
const times = { first: Date.parse("0001-01-01T00:00:00Z"), last: Date.parse("9999-12-31T23:59:59.999Z") } as const;

/** Of these calls the guest agent says "exhausted" when a tree is too large to list, not when a disk is full. */
const listErrors: GuestErrorMeanings = { ...filesystemErrors, [Code.ResourceExhausted]: "guest_refused" };

/** @throws WrennError `file_not_found`, and what else the guest agent has against the path */
export async function statFile(guest: Guest, { path, user }: PathQuery): Promise<FileEntry> {
  return entryFrom(async () => guest.filesystem.stat({ path }, callAs(user)));
}

/** Null when there is nothing. */
export async function findFile(guest: Guest, query: PathQuery): Promise<FileEntry | null> {
  try {
    return await statFile(guest, query);
  } catch (error) {
    if (error instanceof WrennError && error.code === "file_not_found") return null;
    throw error;
  }
}

/** Sorted by name, each directory followed by what is in it. */
export async function listFiles(guest: Guest, query: PathQuery & { readonly depth: number }): Promise<FileEntry[]> {
  const { path, user, depth } = query;
  const { entries } = await asking(async () => guest.filesystem.listDir({ path, depth }, callAs(user)), listErrors);
  return entries.map((entry) => present(entry));
}

/** With those above it that are missing. @throws WrennError `file_exists`, whatever it is that is there */
export async function makeDirectory(guest: Guest, query: PathQuery): Promise<FileEntry> {
  const { path, user } = query;
  try {
    return await entryFrom(async () => guest.filesystem.makeDir({ path }, callAs(user)));
  } catch (error) {
    // A file at this very path and one in the middle of it are the same to the guest agent.
    const inTheWay = error instanceof WrennError && error.code === "wrong_file_type";
    if (inTheWay && (await existsAnyhow(guest, query))) throw new WrennError("file_exists", { cause: error });
    throw error;
  }
}

/** What was at the destination is replaced, unless it is a directory with something in it. */
export async function moveFile(
  guest: Guest,
  { source, destination, user }: { source: string; destination: string; user?: string | undefined },
): Promise<FileEntry> {
  return entryFrom(async () => guest.filesystem.move({ source, destination }, callAs(user)));
}

/** A directory with all that is in it. @throws WrennError `file_not_found` */
export async function removeFile(guest: Guest, query: PathQuery): Promise<void> {
  // To the guest agent, what is not there has been removed.
  await statFile(guest, query);
  const { path, user } = query;
  await asking(async () => guest.filesystem.remove({ path }, callAs(user)), filesystemErrors);
}

async function existsAnyhow(guest: Guest, query: PathQuery): Promise<boolean> {
  try {
    return (await findFile(guest, query)) !== null;
  } catch {
    // What kept the directory from being made says more.
    return false;
  }
}

function callAs(user: string | undefined): { headers: { authorization?: string }; timeoutMs: number } {
  return { headers: asUser(user), timeoutMs: deadlines.guestFiles };
}

async function entryFrom(call: () => Promise<{ entry?: filesystemProto.EntryInfo | undefined }>): Promise<FileEntry> {
  const { entry } = await asking(call, filesystemErrors);
  if (entry === undefined) throw new WrennError("internal", { message: "The guest agent described no file." });
  return present(entry);
}

async function asking<Answer>(call: () => Promise<Answer>, meanings: GuestErrorMeanings): Promise<Answer> {
  try {
    return await call();
  } catch (error) {
    throw errorFromGuest(error, meanings);
  }
}

function present(entry: filesystemProto.EntryInfo): FileEntry {
  const { name, path, mode, permissions, owner, group } = entry;
  return {
    name,
    path,
    type: fileTypes[entry.type] ?? "other",
    // A file of holes can be larger than a number counts exactly.
    size: Math.min(Number(entry.size), Number.MAX_SAFE_INTEGER),
    mode,
    permissions,
    owner,
    group,
    modified_at: isoTime(entry.modifiedTime),
    symlink_target: entry.symlinkTarget ?? null,
  };
}

/** The guest agent's clock is the guest's: it may say anything. */
function isoTime(time: Timestamp | undefined): string {
  const milliseconds = time === undefined ? 0 : timestampMs(time);
  return new Date(Math.min(Math.max(milliseconds, times.first), times.last)).toISOString();
}
