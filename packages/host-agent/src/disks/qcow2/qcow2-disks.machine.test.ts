/** Overlays and layers of disks, as qemu-img and qemu-io see them. */
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type LayerId, newId } from "@wrenn/contract";
import { type Layout, run, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { enginesGid } from "../../engines/users.ts";
import type { DiskChain, SandboxDisk } from "../disks.ts";
import { Qcow2Disks } from "./qcow2-disks.ts";

const sizeMib = 64;
const uid = 1_900_000_001;
const sandboxId = newId("sandbox");

let layout: Layout;
let disks: Qcow2Disks;
let rootfs: string;
/** Nothing but the root filesystem. */
let bare: DiskChain;

beforeEach(async () => {
  const root = await mkdtemp(path.join(tmpdir(), "wrenn-disks-"));
  await chmod(root, 0o711);
  layout = wrennLayout(root);
  await mkdir(layout.layers, { mode: 0o711 });
  disks = new Qcow2Disks(layout);
  rootfs = path.join(root, "rootfs.raw");
  bare = { layers: [], rootfs };
  await writeFile(rootfs, Buffer.alloc(4_194_304, 0x11), { mode: 0o640 });
  await chown(rootfs, 0, enginesGid);
});

afterEach(async () => {
  await rm(layout.root, { recursive: true, force: true });
});

async function overlayOver(below: DiskChain, name: string): Promise<SandboxDisk> {
  const disk = { sandboxId, file: path.join(layout.root, name), below, sizeMib, uid };
  await disks.createOverlay(disk);
  return disk;
}

function fileOf(layer: LayerId): string {
  return layout.layer(layer).disk("qcow2");
}

/** What a guest would write: a pattern from a place on, both in KiB. */
async function writePattern(file: string, pattern: number, fromKib: number, kib: number): Promise<void> {
  await run("qemu-io", ["-f", "qcow2", "-c", `write -P ${pattern} ${fromKib}k ${kib}k`, file]);
}

async function holdsPattern(file: string, pattern: number, fromKib: number, kib: number): Promise<boolean> {
  const { stdout } = await run("qemu-io", ["-r", "-f", "qcow2", "-c", `read -P ${pattern} ${fromKib}k ${kib}k`, file]);
  return !stdout.includes("Pattern verification failed");
}

async function info(file: string): Promise<unknown> {
  const { stdout } = await run("qemu-img", ["info", "--output=json", file]);
  return JSON.parse(stdout) as unknown;
}

/** Writes in an overlay over `backing`, and makes it a sealed layer. */
async function layerOver(below: DiskChain, pattern: number, fromKib: number): Promise<DiskChain> {
  const overlay = await overlayOver(below, `overlay-${pattern}`);
  await writePattern(overlay.file, pattern, fromKib, 128);
  const layer = newId("layer");
  await disks.keepAsLayer(overlay, layer);
  const chain = { layers: [layer, ...below.layers], rootfs };
  await disks.sealTop(chain);
  await rm(overlay.file);
  return chain;
}

function topOf({ layers: [top] }: DiskChain): string {
  if (top === undefined) throw new Error("It has no layers.");
  return fileOf(top);
}

it.each([1, 64, 5_120, 102_400])("an empty overlay of %i MiB is what qemu-img would have made", async (mebibytes) => {
  const file = path.join(layout.root, "overlay.qcow2");
  await disks.createOverlay({ sandboxId, file, below: bare, sizeMib: mebibytes, uid });
  const ours = await info(file);
  await run("qemu-img", ["check", "-q", "-f", "qcow2", file]);
  expect(await stat(file)).toMatchObject({ uid, gid: uid, mode: 0o100600 });
  await rm(file);
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", rootfs, "-F", "raw", file, `${mebibytes}M`]);
  const theirs = await info(file);
  const comparable = { "actual-size": 0 };
  expect({ ...(ours as object), ...comparable }).toEqual({ ...(theirs as object), ...comparable });
});

it("an overlay is not made over what is there already", async () => {
  const target = path.join(layout.root, "precious");
  await writeFile(target, "precious");
  await symlink(target, path.join(layout.root, "overlay.qcow2"));
  await expect(overlayOver(bare, "overlay.qcow2")).rejects.toMatchObject({ code: "EEXIST" });
  await expect(readFile(target, "utf8")).resolves.toBe("precious");
});

it("a layer outlives its overlay, and its engine's user can no longer write it", async () => {
  const layer = topOf(await layerOver(bare, 0x22, 0));
  expect(await stat(layer)).toMatchObject({ uid: 0, gid: enginesGid, mode: 0o100440, nlink: 1 });
  const append = ["--reuid", `${uid}`, "--regid", `${uid}`, "--groups", `${enginesGid}`, "--", "tee", "-a", layer];
  await expect(run("setpriv", append, { input: "x" })).rejects.toMatchObject({ code: "subprocess_failed" });
  await expect(holdsPattern(layer, 0x22, 0, 128)).resolves.toBe(true);
  await expect(holdsPattern(layer, 0x11, 128, 1_024)).resolves.toBe(true);
});

it("a layer that names another file below it than it was laid over is refused", async () => {
  const secret = path.join(layout.root, "secret");
  await writeFile(secret, Buffer.alloc(65_536, 0x55), { mode: 0o600 });
  const overlay = await overlayOver(bare, "overlay");
  await run("qemu-img", ["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, overlay.file]);
  const layer = newId("layer");
  await disks.keepAsLayer(overlay, layer);
  await expect(disks.sealTop({ layers: [layer], rootfs })).rejects.toMatchObject({ code: "snapshot_damaged" });
});

it("a link in an overlay's place becomes no layer, and is given to nobody", async () => {
  const file = path.join(layout.root, "overlay");
  await symlink(rootfs, file);
  const disk = { sandboxId, file, below: bare, sizeMib, uid };
  await expect(disks.keepAsLayer(disk, newId("layer"))).rejects.toMatchObject({ code: "snapshot_damaged" });
  await expect(disks.attach(disk)).rejects.toMatchObject({ code: "snapshot_damaged" });
  expect(await stat(rootfs)).toMatchObject({ uid: 0 });
});

it("a chain folded into one layer holds what each of its layers held, and nothing of the root filesystem's", async () => {
  const bottom = await layerOver(bare, 0x22, 0);
  const middle = await layerOver(bottom, 0x33, 64);
  const chain = await layerOver(middle, 0x44, 8_192);
  const target = newId("layer");
  await disks.flatten({ chain, sizeMib, target }, new AbortController().signal);
  expect(await stat(fileOf(target))).toMatchObject({ uid: 0, gid: enginesGid, mode: 0o100440 });
  // Without the others it still holds everything.
  for (const layer of chain.layers) await rename(fileOf(layer), `${fileOf(layer)}.away`);
  const held = [
    { pattern: 0x22, fromKib: 0, kib: 64 },
    { pattern: 0x33, fromKib: 64, kib: 128 },
    { pattern: 0x11, fromKib: 192, kib: 3_904 },
    { pattern: 0, fromKib: 4_096, kib: 4_096 },
    { pattern: 0x44, fromKib: 8_192, kib: 128 },
  ];
  for (const { pattern, fromKib, kib } of held) {
    await expect(holdsPattern(fileOf(target), pattern, fromKib, kib), `${pattern} at ${fromKib}`).resolves.toBe(true);
  }
  await expect(info(fileOf(target))).resolves.toMatchObject({
    "backing-filename": rootfs,
    "virtual-size": sizeMib * 1_048_576,
  });
  expect((await stat(fileOf(target))).blocks * 512).toBeLessThan(1_048_576);
});

it("a chain with a file in it that an engine could still change is not folded", async () => {
  const below = await layerOver(bare, 0x22, 0);
  const chain = await layerOver(below, 0x33, 64);
  const bottom = topOf(below);
  await chown(bottom, uid, uid);
  const { signal } = new AbortController();
  const fold = (): Promise<void> => disks.flatten({ chain, sizeMib, target: newId("layer") }, signal);
  await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
  await chown(bottom, 0, enginesGid);
  await truncate(bottom, 64);
  await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
  await rm(bottom);
  await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
});
