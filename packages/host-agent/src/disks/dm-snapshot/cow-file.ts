/**
 * The files in which dm-snapshot keeps what was written to a disk (`persistent`, drivers/md/dm-snap-persistent.c of Linux). A file is cut
 * into chunks. The first has the header; then come areas, each a chunk of exceptions, which say where chunks of the disk are kept, and the
 * chunks that they speak of. Numbers are little-endian.
 */
import type { FileHandle } from "node:fs/promises";

/** The kernel's unit of devices' sizes, whatever their blocks are. */
export const sectorBytes = 512;

/** The least that a write takes up. It is also a page and a block of the usual file systems, so that no write has to be filled up. */
export const chunkBytes = 4_096;
export const chunkSectors = chunkBytes / sectorBytes;

/** An exception is the number of a chunk of the disk, and that of the chunk of the file that has its content. */
const exceptionBytes = 16;
export const exceptionsPerArea = chunkBytes / exceptionBytes;
const areaChunks = 1 + exceptionsPerArea;

/** The header takes a chunk, of which only this is used. */
const headerChunks = 1;
const headerBytes = 16;
const header = { magic: 0, valid: 4, version: 8, chunkSectors: 12 } as const;
const magic = 0x7041_6e53;
const version = 1;

/**
 * How long a file must be so that every chunk of a disk can be written. A kernel that finds no room in it gives up the whole disk. When an
 * area is full it begins the next at once, also when nothing is left to be written: so there is always one more than is needed.
 */
export function cowFileBytes(diskBytes: number): number {
  const chunks = Math.ceil(diskBytes / chunkBytes);
  const areas = Math.floor(chunks / exceptionsPerArea) + 1;
  return (headerChunks + areas + chunks) * chunkBytes;
}

export function areaOffset(area: number): number {
  return (headerChunks + area * areaChunks) * chunkBytes;
}

/** The number of the chunk of a file that the n-th exception of an area speaks of, in files that were written in order. */
export function chunkAt(area: number, index: number): number {
  return areaOffset(area) / chunkBytes + 1 + index;
}

/**
 * What a file begins with in which nothing has been written: no area is as good as one of zeros. The whole chunk, so that the host's file
 * system has room for it, whatever its blocks are: the kernel writes here when it gives the disk up because there is no room left.
 */
export function encodeHeader(): Buffer {
  const bytes = Buffer.alloc(chunkBytes);
  bytes.writeUInt32LE(magic, header.magic);
  bytes.writeUInt32LE(1, header.valid);
  bytes.writeUInt32LE(version, header.version);
  bytes.writeUInt32LE(chunkSectors, header.chunkSectors);
  return bytes;
}

/** An area whose chunks have the contents of these chunks of the disk, in this order. */
export function encodeArea(area: number, diskChunks: readonly number[]): Buffer {
  const bytes = Buffer.alloc(chunkBytes);
  for (const [index, diskChunk] of diskChunks.entries()) {
    bytes.writeBigUInt64LE(BigInt(diskChunk), index * exceptionBytes);
    bytes.writeBigUInt64LE(BigInt(chunkAt(area, index)), index * exceptionBytes + 8);
  }
  return bytes;
}

/**
 * `failed`: the kernel has given the disk up, because a write to the file failed. `blank`: nothing was ever written, not even the header. Null
 * for what is no such file, or not of the kind that is made here.
 */
export async function readState(handle: FileHandle): Promise<"valid" | "failed" | "blank" | null> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(headerBytes), 0, headerBytes, 0);
  if (bytesRead < headerBytes) return null;
  if (buffer.equals(Buffer.alloc(headerBytes))) return "blank";
  if (buffer.readUInt32LE(header.magic) !== magic || buffer.readUInt32LE(header.version) !== version) return null;
  if (buffer.readUInt32LE(header.chunkSectors) !== chunkSectors) return null;
  return buffer.readUInt32LE(header.valid) === 1 ? "valid" : "failed";
}

/**
 * Makes a file that the kernel has given up usable again. The kernel does so because the device below may have changed since; but below
 * these there are only sealed layers. Every exception in it was written after the content that it speaks of: so the disk is what a power
 * cut at the moment of the failure would have left.
 */
export async function makeValid(handle: FileHandle): Promise<void> {
  await handle.write(encodeHeader(), 0, undefined, 0);
  await handle.sync();
}

/** Calls back for every chunk of the disk that the file has. Throws RangeError for an exception that cannot be. */
export async function readExceptions(
  handle: FileHandle,
  diskBytes: number,
  found: (diskChunk: number, fileChunk: number) => void,
): Promise<void> {
  const diskChunks = Math.ceil(diskBytes / chunkBytes);
  const fileChunks = Math.floor((await handle.stat()).size / chunkBytes);
  const chunk = Buffer.alloc(chunkBytes);
  for (let area = 0; areaOffset(area) < fileChunks * chunkBytes; area++) {
    await handle.read(chunk, 0, chunkBytes, areaOffset(area));
    for (let at = 0; at < chunkBytes; at += exceptionBytes) {
      const fileChunk = Number(chunk.readBigUInt64LE(at + 8));
      // The header's chunk holds no content: here the exceptions end.
      if (fileChunk === 0) return;
      const diskChunk = Number(chunk.readBigUInt64LE(at));
      if (diskChunk >= diskChunks || fileChunk >= fileChunks || isExceptions(fileChunk)) {
        throw new RangeError(`says that chunk ${diskChunk} is kept in chunk ${fileChunk}`);
      }
      found(diskChunk, fileChunk);
    }
  }
}

function isExceptions(fileChunk: number): boolean {
  return (fileChunk - headerChunks) % areaChunks === 0;
}
