/** Files of changes, written, read and merged, without a kernel. */
import { mkdtemp, open, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { FileHandle } from "node:fs/promises";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  areaOffset,
  chunkBytes,
  cowFileBytes,
  encodeArea,
  encodeHeader,
  exceptionsPerArea,
  makeValid,
  readExceptions,
  readState,
} from "./cow-file.ts";
import { mergeChanges } from "./merge.ts";

/** More than two areas of exceptions. */
const diskChunks = 600;
const diskBytes = diskChunks * chunkBytes;

let scratch: string;
const opened: FileHandle[] = [];

beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), "wrenn-merge-"));
});

afterAll(async () => {
  await rm(scratch, { recursive: true });
});

/** The chunks of a disk that were written, in the order in which they were, each with a byte that fills it. */
type Writes = ReadonlyMap<number, number>;

async function fileOf(writes: Writes, name: string): Promise<FileHandle> {
  const handle = await open(path.join(scratch, name), "w+");
  opened.push(handle);
  await handle.write(encodeHeader(), 0, undefined, 0);
  await handle.truncate(cowFileBytes(diskBytes));
  const chunks = [...writes.keys()];
  for (let area = 0; area * exceptionsPerArea < chunks.length; area++) {
    const here = chunks.slice(area * exceptionsPerArea, (area + 1) * exceptionsPerArea);
    const contents = here.map((chunk) => Buffer.alloc(chunkBytes, writes.get(chunk) ?? 0));
    await handle.write(Buffer.concat([encodeArea(area, here), ...contents]), 0, undefined, areaOffset(area));
  }
  return handle;
}

async function contentsOf(handle: FileHandle): Promise<Map<number, number>> {
  const places = new Map<number, number>();
  await readExceptions(handle, diskBytes, (diskChunk, fileChunk) => places.set(diskChunk, fileChunk));
  const contents = new Map<number, number>();
  for (const [diskChunk, fileChunk] of places) {
    const { buffer } = await handle.read(Buffer.alloc(chunkBytes), 0, chunkBytes, fileChunk * chunkBytes);
    const fill = buffer[0] ?? 0;
    if (!buffer.equals(Buffer.alloc(chunkBytes, fill))) throw new Error(`chunk ${diskChunk} is of two writes`);
    contents.set(diskChunk, fill);
  }
  return contents;
}

const writes: fc.Arbitrary<Writes> = fc
  .uniqueArray(fc.nat(diskChunks - 1), { maxLength: diskChunks, size: "max" })
  .chain((chunks) =>
    fc.array(fc.integer({ min: 0, max: 3 }), { minLength: chunks.length, maxLength: chunks.length }).map((fills) => {
      return new Map(chunks.map((chunk, index) => [chunk, fills[index] ?? 0]));
    }),
  );

it("files that are merged change a disk as they do over each other, and take up no more than what differs", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(writes, { minLength: 1, maxLength: 4 }), async (layers) => {
      const files = layers.map(async (each, index) => ({
        file: `layer-${index}`,
        handle: await fileOf(each, `layer-${index}`),
      }));
      const merged = await open(path.join(scratch, "merged"), "w+");
      opened.push(merged);
      await mergeChanges(await Promise.all(files), diskBytes, merged, new AbortController().signal);
      await merged.sync();
      const expected = new Map(layers.toReversed().flatMap((each) => [...each]));
      expect(await contentsOf(merged)).toEqual(expected);
      expect([...(await contentsOf(merged)).keys()]).toEqual([...expected.keys()].toSorted((a, b) => a - b));
      const filled = [...expected.values()].filter((fill) => fill !== 0).length;
      const areas = Math.ceil(expected.size / exceptionsPerArea);
      const { blocks, size } = await stat(path.join(scratch, "merged"));
      expect(size).toBe(cowFileBytes(diskBytes));
      // A block more for what the file system itself keeps of a file in many pieces.
      expect(blocks * 512).toBeLessThanOrEqual((1 + areas + filled + 1) * chunkBytes);
      for (const handle of opened.splice(0)) await handle.close();
    }),
    { numRuns: 10 },
  );
}, 60_000);

it("an exception that leads out of the disk, out of the file or to exceptions is refused", async () => {
  const handle = await fileOf(new Map([[5, 1]]), "damaged");
  const wrong: [number, bigint][] = [
    [0, BigInt(diskChunks)],
    [8, BigInt(cowFileBytes(diskBytes) / chunkBytes)],
    [8, BigInt(areaOffset(1) / chunkBytes)],
  ];
  for (const [at, value] of wrong) {
    const area = encodeArea(0, [5]);
    area.writeBigUInt64LE(value, at);
    await handle.write(area, 0, undefined, areaOffset(0));
    await expect(readExceptions(handle, diskBytes, () => undefined)).rejects.toThrow(RangeError);
  }
  await handle.close();
});

it("a file tells whether the kernel has given it up, and can be used again", async () => {
  const handle = await fileOf(new Map([[5, 1]]), "given-up");
  expect(await readState(handle)).toBe("valid");
  await handle.write(Buffer.from([0]), 0, 1, 4);
  expect(await readState(handle)).toBe("failed");
  await makeValid(handle);
  expect(await readState(handle)).toBe("valid");
  expect(await contentsOf(handle)).toEqual(new Map([[5, 1]]));
  for (const [at, byte] of [
    [0, 1],
    [8, 2],
    [12, 16],
  ] as const) {
    await handle.write(encodeHeader(), 0, undefined, 0);
    await handle.write(Buffer.from([byte]), 0, 1, at);
    expect(await readState(handle)).toBeNull();
  }
  await handle.write(Buffer.alloc(chunkBytes), 0, undefined, 0);
  expect(await readState(handle)).toBe("blank");
  await handle.truncate(3);
  expect(await readState(handle)).toBeNull();
  await handle.close();
});
