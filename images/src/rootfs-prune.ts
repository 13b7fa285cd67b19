/** Root filesystems that a newer one has replaced, and that nothing can still refer to. */
import { readdir, rm } from "node:fs/promises";
import { baseTemplateSchema } from "@wrenn/contract";
import { isMissingFile, readJson, type Layout, type TemplateLayout } from "@wrenn/system";

/**
 * Removes the template's root filesystems other than the one its manifest names; returns their names. A sandbox's overlay is
 * worthless without the exact file it was made over, so as long as there is any sandbox on this machine nothing is removed.
 */
export async function removeUnusedRootfs(layout: Layout, template: TemplateLayout): Promise<string[]> {
  if ((await namesIn(layout.sandboxes)).length > 0) return [];
  const manifest = baseTemplateSchema.safeParse(await readJson(template.manifest));
  if (!manifest.success) return [];
  const unused = (await namesIn(template.directory)).filter(
    (name) => /^rootfs-[0-9a-f]+\.ext4$/.test(name) && name !== manifest.data.rootfs,
  );
  for (const name of unused) await rm(template.rootfs(name));
  return unused;
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch((error: unknown) => {
    if (isMissingFile(error)) return [];
    throw error;
  });
}
