/** A file or directory as the SDK describes it. */
import type { FileType } from "@wrenn/contract";
import { filesystemProto } from "@wrenn/contract";
import { timestampDate } from "@bufbuild/protobuf/wkt";

export interface FileEntry {
  name: string;
  /** Absolute. */
  path: string;
  /** Of a symbolic link what it leads to; `symlink` when it leads nowhere. */
  type: FileType;
  /** Bytes. */
  size: number;
  /** Permission bits, as a number. */
  mode: number;
  /** As `ls -l` prints them: `-rw-r--r--`. */
  permissions: string;
  owner: string;
  group: string;
  modifiedAt: Date;
  /** Where a symbolic link leads; null for everything else. */
  symlinkTarget: string | null;
}

export function toFileEntry(entry: filesystemProto.EntryInfo): FileEntry {
  const { name, path, size, mode, permissions, owner, group, modifiedTime, symlinkTarget } = entry;
  return {
    name,
    path,
    type: fileTypes[entry.type],
    size: Number(size),
    mode,
    permissions,
    owner,
    group,
    modifiedAt: modifiedTime === undefined ? new Date(0) : timestampDate(modifiedTime),
    symlinkTarget: symlinkTarget ?? null,
  };
}

const fileTypes: Record<filesystemProto.FileType, FileType> = {
  [filesystemProto.FileType.FILE]: "file",
  [filesystemProto.FileType.DIRECTORY]: "directory",
  [filesystemProto.FileType.SYMLINK]: "symlink",
  [filesystemProto.FileType.UNSPECIFIED]: "other",
};
