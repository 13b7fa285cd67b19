/**
 * A sandbox's own disk: a qcow2 overlay over its template's root filesystem, or over a layer that an earlier overlay has become. Both are
 * shared and never written.
 */
import { chmod, chown, link, lstat, mkdir, open, rm } from "node:fs/promises";
import path from "node:path";
import { deadlines, WrennError } from "@wrenn/contract";
import { isMissingFile, type LayerLayout, run, syncDirectory } from "@wrenn/system";
import { enginesGid } from "../engines/users.ts";

/** What an overlay is laid over. */
export interface Backing {
  /** Absolute path. */
  readonly path: string;
  readonly format: "raw" | "qcow2";
}

export interface OverlayOptions {
  readonly file: string;
  readonly backing: Backing;
  readonly sizeMib: number;
  /** The engine's user, who alone may read and write it. */
  readonly uid: number;
}

/** Engines' users pass through to a layer whose name they were given. */
const layerDirectoryMode = 0o711;

/** POSIX counts `st_blocks` in units of 512 bytes on Linux (stat(2)). */
const blockBytes = 512;

export async function createOverlay(options: OverlayOptions): Promise<void> {
  const { file, backing, sizeMib, uid } = options;
  const over = ["-b", backing.path, "-F", backing.format];
  await run("qemu-img", ["create", "-q", "-f", "qcow2", ...over, file, `${sizeMib}M`]);
  await chmod(file, 0o600);
  await chown(file, uid, uid);
}

/**
 * Gives the overlay a second name, under which it outlives its sandbox, and makes its content last. The engine may still have it open, but
 * must be frozen, or have left it for another overlay.
 */
export async function keepAsDiskLayer(overlay: string, layer: LayerLayout): Promise<void> {
  await mkdir(layer.directory, { recursive: true, mode: layerDirectoryMode });
  await link(overlay, layer.disk);
  await syncFile(layer.disk);
  for (const directory of [layer.directory, path.dirname(layer.directory)]) await syncDirectory(directory);
}

/** Takes the layer from the user whose engine wrote it: once that has let go, nobody can change it. Can be done again. */
export async function sealDiskLayer(layer: LayerLayout): Promise<void> {
  await chown(layer.disk, 0, enginesGid);
  await chmod(layer.disk, 0o440);
}

export interface FlattenOptions {
  /** The top of the chain; every overlay below it is found by what it names as its backing. */
  readonly top: string;
  /** The raw root filesystem at the bottom, which stays a file of its own. */
  readonly rootfs: string;
  readonly target: LayerLayout;
}

/** Makes one sealed layer over the root filesystem of a chain of layers, with all that they hold. */
export async function flattenDisk({ top, rootfs, target }: FlattenOptions, signal: AbortSignal): Promise<void> {
  await mkdir(target.directory, { recursive: true, mode: layerDirectoryMode });
  const over = ["-B", rootfs, "-F", "raw"];
  await run("qemu-img", ["convert", "-q", "-f", "qcow2", "-O", "qcow2", ...over, top, target.disk], {
    timeoutMs: deadlines.memoryFold,
    signal,
  });
  await sealDiskLayer(target);
  await syncFile(target.disk);
  for (const directory of [target.directory, path.dirname(target.directory)]) await syncDirectory(directory);
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function removeOverlay(file: string): Promise<void> {
  // Recursive: the engine's user could have put a directory in the overlay's place.
  await rm(file, { recursive: true, force: true });
}

/** Bytes the overlay takes up on the host, never its apparent size; 0 when there is none. */
export async function overlayUsedBytes(file: string): Promise<number> {
  try {
    // lstat: the engine's user could have put a link in the overlay's place.
    return (await lstat(file)).blocks * blockBytes;
  } catch (error) {
    if (isMissingFile(error)) return 0;
    throw new WrennError("internal", { message: `The size of ${file} could not be read.`, cause: error });
  }
}
