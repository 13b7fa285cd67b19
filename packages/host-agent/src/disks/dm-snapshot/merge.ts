/** Files of changes that lie over each other, written as one. */
import type { FileHandle } from "node:fs/promises";
import { damaged } from "../overlay-files.ts";
import {
  areaOffset,
  chunkAt,
  chunkBytes,
  cowFileBytes,
  encodeArea,
  encodeHeader,
  exceptionsPerArea,
  readExceptions,
} from "./cow-file.ts";

/** A file of changes, open for reading. */
export interface Changes {
  readonly file: string;
  readonly handle: FileHandle;
}

/** Where the content of a chunk of the disk is. */
interface Place {
  readonly diskChunk: number;
  readonly changes: Changes;
  readonly fileChunk: number;
}

/**
 * Writes a file that changes a disk as all of these do, the topmost first. Chunks of zeros are left as holes.
 * @param target an empty file, open for writing
 * @throws WrennError `snapshot_damaged`
 */
export async function mergeChanges(
  layers: readonly Changes[],
  diskBytes: number,
  target: FileHandle,
  signal: AbortSignal,
): Promise<void> {
  await target.write(encodeHeader(), 0, undefined, 0);
  await target.truncate(cowFileBytes(diskBytes));
  let area = 0;
  for (const places of areasOf(await findPlaces(layers, diskBytes))) {
    signal.throwIfAborted();
    const contents = await readPlaces(places);
    await writeSparsely(target, contents, chunkAt(area, 0) * chunkBytes);
    await target.write(
      encodeArea(
        area,
        places.map(({ diskChunk }) => diskChunk),
      ),
      0,
      undefined,
      areaOffset(area),
    );
    area += 1;
  }
}

/** By the disk's chunks, in their order. A few bytes for each chunk of the disk: 6.5 MB for 5 GiB. */
async function findPlaces(layers: readonly Changes[], diskBytes: number): Promise<Iterable<Place>> {
  const diskChunks = Math.ceil(diskBytes / chunkBytes);
  const fileChunks = new Uint32Array(diskChunks);
  const indexes = new Uint16Array(diskChunks);
  for (const [index, { file, handle }] of layers.entries()) {
    try {
      await readExceptions(handle, diskBytes, (diskChunk, fileChunk) => {
        // What lies above hides what lies below.
        if (fileChunks[diskChunk] !== 0) return;
        fileChunks[diskChunk] = fileChunk;
        indexes[diskChunk] = index;
      });
    } catch (error) {
      throw error instanceof RangeError ? damaged(file, error.message, error) : error;
    }
  }
  return (function* places(): Iterable<Place> {
    for (const [diskChunk, fileChunk] of fileChunks.entries()) {
      const changes = layers[indexes[diskChunk] ?? 0];
      if (fileChunk !== 0 && changes !== undefined) yield { diskChunk, changes, fileChunk };
    }
  })();
}

function* areasOf(places: Iterable<Place>): Iterable<Place[]> {
  let area: Place[] = [];
  for (const place of places) {
    area.push(place);
    if (area.length < exceptionsPerArea) continue;
    yield area;
    area = [];
  }
  if (area.length > 0) yield area;
}

/** Their contents one after the other, read in as few pieces as they lie in. */
async function readPlaces(places: readonly Place[]): Promise<Buffer> {
  const contents = Buffer.alloc(places.length * chunkBytes);
  for (let from = 0; from < places.length;) {
    const first = places[from];
    if (first === undefined) break;
    let to = from + 1;
    while (places[to]?.changes === first.changes && places[to]?.fileChunk === first.fileChunk + to - from) to++;
    await readFully(first.changes, contents.subarray(from * chunkBytes, to * chunkBytes), first.fileChunk * chunkBytes);
    from = to;
  }
  return contents;
}

async function readFully({ file, handle }: Changes, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw damaged(file, `ends before byte ${position + into.length}`);
    done += bytesRead;
  }
}

async function writeSparsely(target: FileHandle, contents: Buffer, position: number): Promise<void> {
  const zeros = Buffer.alloc(chunkBytes);
  const isZero = (at: number): boolean => contents.subarray(at, at + chunkBytes).equals(zeros);
  for (let from = 0; from < contents.length;) {
    let to = from + chunkBytes;
    if (!isZero(from)) {
      while (to < contents.length && !isZero(to)) to += chunkBytes;
      await target.write(contents, from, to - from, position + from);
    }
    from = to;
  }
}
