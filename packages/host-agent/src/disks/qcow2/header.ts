/**
 * The parts of qcow2 (https://www.qemu.org/docs/master/interop/qcow2.html) that are not left to QEMU: an empty overlay as bytes, because
 * starting qemu-img takes 7 to 20 ms of every restore, and which file an overlay says that it is laid over. No I/O.
 */
import { WrennError } from "@wrenn/contract";

/** What an overlay is laid over. */
export interface Backing {
  /** Absolute path. */
  readonly path: string;
  readonly format: "raw" | "qcow2";
}

/** Bytes at a place in a file; what is between such pieces are zeros. */
interface Piece {
  readonly offset: number;
  readonly bytes: Buffer;
}

const magic = 0x514649fb;
const version = 3;
const clusterBits = 16;
const clusterBytes = 2 ** clusterBits;
/** The base-2 logarithm of the bits of a reference count. */
const refcountOrder = 4;
const refcountBytes = 2;
const headerBytes = 112;
/** The name of the backing file's format. */
const formatExtension = 0xe2792aca;
/** The format allows no longer name. */
const maxBackingPathBytes = 1_023;
/** All that a header can say lies in the first cluster. */
export const headerClusterBytes = clusterBytes;

/** Where the header's fields lie. All numbers are big-endian. */
const at = {
  magic: 0,
  version: 4,
  backingOffset: 8,
  backingLength: 16,
  clusterBits: 20,
  size: 24,
  encryption: 32,
  l1Entries: 36,
  l1Offset: 40,
  refcountTableOffset: 48,
  refcountTableClusters: 56,
  incompatibleFeatures: 72,
  refcountOrder: 96,
  headerLength: 100,
} as const;

/** The image is known to be corrupt, and still readable. Every other feature that a reader must know is none of ours. */
const corruptFeature = 0b10n;

/** An overlay in which nothing has been written: header, reference counts, and a table of the first level that is all zeros. */
export function emptyOverlay(backing: Backing, sizeBytes: number): { pieces: Piece[]; fileBytes: number } {
  const [refcountTable, refcountBlock, l1Table] = [clusterBytes, 2 * clusterBytes, 3 * clusterBytes];
  // A table of the second level fills a cluster with entries of eight bytes, each for a cluster.
  const l1Entries = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8)));
  const l1Bytes = l1Entries * 8;
  const usedClusters = 3 + Math.ceil(l1Bytes / clusterBytes);

  const header = Buffer.alloc(headerBytes);
  header.writeUInt32BE(magic, at.magic);
  header.writeUInt32BE(version, at.version);
  header.writeUInt32BE(clusterBits, at.clusterBits);
  header.writeBigUInt64BE(BigInt(sizeBytes), at.size);
  header.writeUInt32BE(l1Entries, at.l1Entries);
  header.writeBigUInt64BE(BigInt(l1Table), at.l1Offset);
  header.writeBigUInt64BE(BigInt(refcountTable), at.refcountTableOffset);
  header.writeUInt32BE(1, at.refcountTableClusters);
  header.writeUInt32BE(refcountOrder, at.refcountOrder);
  header.writeUInt32BE(headerBytes, at.headerLength);

  const name = Buffer.from(backing.path);
  if (name.length > maxBackingPathBytes) {
    throw new WrennError("internal", { message: `${backing.path} is too long a name for the disk below another.` });
  }
  const extensions = Buffer.concat([extension(formatExtension, Buffer.from(backing.format)), Buffer.alloc(8)]);
  header.writeBigUInt64BE(BigInt(headerBytes + extensions.length), at.backingOffset);
  header.writeUInt32BE(name.length, at.backingLength);

  const firstBlock = Buffer.alloc(8);
  firstBlock.writeBigUInt64BE(BigInt(refcountBlock));
  const counts = Buffer.alloc(usedClusters * refcountBytes);
  for (let cluster = 0; cluster < usedClusters; cluster++) counts.writeUInt16BE(1, cluster * refcountBytes);
  return {
    pieces: [
      { offset: 0, bytes: Buffer.concat([header, extensions, name]) },
      { offset: refcountTable, bytes: firstBlock },
      { offset: refcountBlock, bytes: counts },
    ],
    fileBytes: l1Table + l1Bytes,
  };
}

/**
 * Which file an overlay is laid over.
 * @param cluster the first cluster of the file
 * @returns null for what is no overlay, or has its data elsewhere: written by somebody else than QEMU or `emptyOverlay`
 */
export function backingOf(cluster: Buffer): Backing | null {
  if (cluster.length < headerBytes || cluster.readUInt32BE(at.magic) !== magic) return null;
  if (cluster.readUInt32BE(at.version) !== version || cluster.readUInt32BE(at.encryption) !== 0) return null;
  if ((cluster.readBigUInt64BE(at.incompatibleFeatures) & ~corruptFeature) !== 0n) return null;
  const from = Number(cluster.readBigUInt64BE(at.backingOffset));
  const path = cluster.subarray(from, from + cluster.readUInt32BE(at.backingLength)).toString("utf8");
  const format = findExtension(cluster, formatExtension)?.toString("utf8");
  if (from === 0 || !path.startsWith("/") || (format !== "raw" && format !== "qcow2")) return null;
  return { path, format };
}

function extension(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(type, 0);
  head.writeUInt32BE(data.length, 4);
  return Buffer.concat([head, data, Buffer.alloc(padding(data.length))]);
}

function findExtension(cluster: Buffer, wanted: number): Buffer | null {
  for (let offset = cluster.readUInt32BE(at.headerLength); offset + 8 <= cluster.length;) {
    const type = cluster.readUInt32BE(offset);
    const length = cluster.readUInt32BE(offset + 4);
    if (type === 0) return null;
    const data = cluster.subarray(offset + 8, offset + 8 + length);
    if (type === wanted) return data;
    offset += 8 + length + padding(length);
  }
  return null;
}

/** Extensions are padded to multiples of eight bytes. */
function padding(length: number): number {
  return (8 - (length % 8)) % 8;
}
