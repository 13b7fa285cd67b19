import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { bootManifestSchema } from "@wrenn/contract";
import { type Layout, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bootFilesAreCurrent, buildBootFiles } from "./initramfs.ts";
import type { Kernel } from "./kernel.ts";
import { imagePaths } from "./paths.ts";

let layout: Layout;
let kernel: Kernel;
let agent: string;

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-boot-")));
  kernel = { ...imagePaths(layout).kernel("recipe"), recipe: "recipe", kernelVersion: "6.1.0", form: "vmlinux" };
  agent = path.join(layout.root, "agent");
  await mkdir(kernel.modules, { recursive: true });
  await writeFile(kernel.image, "kernel");
  await writeFile(path.join(kernel.modules, "order"), "virtio.ko\n");
  await writeFile(path.join(kernel.modules, "virtio.ko"), "module");
});
afterEach(async () => {
  await rm(layout.root, { recursive: true });
});

async function publish(content: string): Promise<string> {
  await writeFile(agent, content);
  const manifest = await buildBootFiles({ layout }, kernel, agent);
  return path.dirname(manifest.kernel);
}

describe("what VMs boot", () => {
  it("is published as a pair that the manifest names", async () => {
    await publish("agent 1");
    const manifest = bootManifestSchema.parse(JSON.parse(await readFile(layout.bootManifest, "utf8")));
    expect(await readFile(path.join(layout.boot, manifest.kernel), "utf8")).toBe("kernel");
    const initramfs = await readFile(path.join(layout.boot, manifest.initramfs), "latin1");
    for (const name of ["init", "dev/console", "modules/order", "modules/virtio.ko"]) expect(initramfs).toContain(name);
    expect(await bootFilesAreCurrent(layout, kernel, manifest.guestAgent)).toBe(true);
  });

  it("is outdated with another guest agent or kernel, or when a file is gone", async () => {
    await publish("agent 1");
    const manifest = bootManifestSchema.parse(JSON.parse(await readFile(layout.bootManifest, "utf8")));
    expect(await bootFilesAreCurrent(layout, kernel, "0".repeat(64))).toBe(false);
    expect(await bootFilesAreCurrent(layout, { ...kernel, recipe: "other" }, manifest.guestAgent)).toBe(false);
    await rm(path.join(layout.boot, manifest.initramfs));
    expect(await bootFilesAreCurrent(layout, kernel, manifest.guestAgent)).toBe(false);
  });

  it("keeps the pair before it for a host agent that is about to use it, and no older one", async () => {
    const first = await publish("agent 1");
    const second = await publish("agent 2");
    expect((await readdir(layout.boot)).toSorted()).toEqual([first, second, "current.json"].toSorted());
    const third = await publish("agent 3");
    expect((await readdir(layout.boot)).toSorted()).toEqual([second, third, "current.json"].toSorted());
  });

  it("survives a manifest that cannot be read", async () => {
    await mkdir(layout.boot, { recursive: true });
    await writeFile(layout.bootManifest, '{"kernel": "../../etc/passwd"}');
    expect(await bootFilesAreCurrent(layout, kernel, "0".repeat(64))).toBe(false);
    const only = await publish("agent 1");
    expect((await readdir(layout.boot)).toSorted()).toEqual([only, "current.json"].toSorted());
  });
});
