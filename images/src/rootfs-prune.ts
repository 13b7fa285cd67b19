/** Root filesystems that a newer one has replaced, and that nothing can still refer to. */
import { readdir, realpath, rm } from "node:fs/promises";
import { baseTemplateSchema, frozenDiskSchema, parseUuid } from "@wrenn/contract";
import { isMissingFile, readJson, type Layout, type TemplateLayout } from "@wrenn/system";
import { z } from "zod";

const generationSchema = z.object({ disk: frozenDiskSchema });

/**
 * Removes the template's root filesystems other than the one its manifest names; returns their names. The overlay of a sandbox and the
 * disk of a frozen state are worthless without the exact file they were made over. So those that frozen states name stay, and as long as
 * there is any sandbox on this machine, or a frozen state that cannot be read, nothing is removed.
 */
export async function removeUnusedRootfs(layout: Layout, template: TemplateLayout): Promise<string[]> {
  if ((await namesIn(layout.sandboxes)).length > 0) return [];
  const manifest = baseTemplateSchema.safeParse(await readJson(template.manifest));
  if (!manifest.success) return [];
  const frozen = await rootfsOfGenerations(layout);
  if (frozen === null) return [];
  const unused: string[] = [];
  for (const name of await namesIn(template.directory)) {
    if (!/^rootfs-[0-9a-f]+\.ext4$/.test(name) || name === manifest.data.rootfs) continue;
    if (!frozen.has(await realpath(template.rootfs(name)))) unused.push(name);
  }
  for (const name of unused) await rm(template.rootfs(name));
  return unused;
}

/** Root filesystems under the disks of frozen states, by their real paths; null when that cannot be told. */
async function rootfsOfGenerations(layout: Layout): Promise<ReadonlySet<string> | null> {
  const found = new Set<string>();
  for (const name of await namesIn(layout.generations)) {
    // What has another name is not ours.
    const id = z.uuid().safeParse(name);
    if (!id.success) continue;
    const { manifest } = layout.generation(parseUuid("generation", id.data));
    const content = await readJson(manifest).catch(() => undefined);
    // One without a manifest has not been committed.
    if (content === null) continue;
    const generation = generationSchema.safeParse(content);
    if (!generation.success) return null;
    found.add(await realPathOf(generation.data.disk.rootfs));
  }
  return found;
}

/** The same file may have been named by another path, as through a link to the templates. */
async function realPathOf(file: string): Promise<string> {
  return realpath(file).catch((error: unknown) => {
    if (isMissingFile(error)) return file;
    throw error;
  });
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch((error: unknown) => {
    if (isMissingFile(error)) return [];
    throw error;
  });
}
