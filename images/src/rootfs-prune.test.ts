import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import { type Layout, type TemplateLayout, wrennLayout, writeJsonDurably } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { removeUnusedRootfs } from "./rootfs-prune.ts";

let layout: Layout;
let template: TemplateLayout;

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-prune-")));
  template = layout.template(platformTeamId, minimalTemplateId);
  await mkdir(template.directory, { recursive: true });
  for (const name of ["rootfs-01.ext4", "rootfs-02.ext4", "notes.txt"]) await writeFile(template.rootfs(name), "");
  await writeJsonDurably(template.manifest, { rootfs: "rootfs-02.ext4", diskMib: 5_120 });
});
afterEach(async () => {
  await rm(layout.root, { recursive: true });
});

/** Leaves a committed state whose disk is made over this root filesystem. */
async function freeze(name: string, directory = template.directory): Promise<void> {
  const generation = layout.generation(newId("generation"));
  await mkdir(generation.directory, { recursive: true });
  await writeJsonDurably(generation.manifest, { disk: { layers: [], rootfs: path.join(directory, name) } });
}

describe("replaced root filesystems", () => {
  it("are removed when no sandbox can refer to them", async () => {
    expect(await removeUnusedRootfs(layout, template)).toEqual(["rootfs-01.ext4"]);
    expect((await readdir(template.directory)).toSorted()).toEqual(["notes.txt", "rootfs-02.ext4", "template.json"]);
  });

  it("stay while there is any sandbox, even one whose journal cannot be read", async () => {
    await mkdir(layout.sandbox(newId("sandbox")).directory, { recursive: true });
    expect(await removeUnusedRootfs(layout, template)).toEqual([]);
  });

  it("stay while the disk of a frozen state is made over them", async () => {
    await freeze("rootfs-01.ext4");
    await writeFile(template.rootfs("rootfs-00.ext4"), "");
    expect(await removeUnusedRootfs(layout, template)).toEqual(["rootfs-00.ext4"]);
    await rm(layout.generations, { recursive: true });
    expect(await removeUnusedRootfs(layout, template)).toEqual(["rootfs-01.ext4"]);
  });

  it("stay when a frozen state reaches them by another path", async () => {
    const link = path.join(layout.root, "link");
    await symlink(template.directory, link);
    await freeze("rootfs-01.ext4", link);
    expect(await removeUnusedRootfs(layout, template)).toEqual([]);
  });

  it("stay while a frozen state cannot be read, but not for one that was never committed", async () => {
    const generation = layout.generation(newId("generation"));
    await mkdir(generation.directory, { recursive: true });
    await writeFile(generation.manifest, '{"disk":');
    expect(await removeUnusedRootfs(layout, template)).toEqual([]);
    await rm(generation.manifest);
    expect(await removeUnusedRootfs(layout, template)).toEqual(["rootfs-01.ext4"]);
  });

  it("stay when nothing says which one is in use", async () => {
    await rm(template.manifest);
    expect(await removeUnusedRootfs(layout, template)).toEqual([]);
  });
});
