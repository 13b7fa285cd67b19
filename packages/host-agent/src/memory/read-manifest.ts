/** Finding generations and layers in their directories, and reading manifests. */
import { readdir } from "node:fs/promises";
import { type GenerationId, type Id, type IdKind, WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, type Layout, readJson } from "@wrenn/system";
import { type GenerationManifest, generationManifestSchema, idSchema } from "./manifest.ts";

/**
 * Null when there is none.
 * @throws WrennError `snapshot_damaged` when what is there cannot be read
 */
export async function readManifest(layout: Layout, id: GenerationId): Promise<GenerationManifest | null> {
  const file = layout.generation(id).manifest;
  const damaged = (cause: unknown): WrennError =>
    new WrennError("snapshot_damaged", { message: `${file} cannot be read.`, details: { generation: id }, cause });
  const content = await readJson(file).catch((error: unknown) => {
    throw damaged(error);
  });
  if (content === null) return null;
  const manifest = generationManifestSchema.safeParse(content);
  if (!manifest.success) throw damaged(manifest.error);
  if (manifest.data.id !== id) throw damaged(new Error(`It is the manifest of ${manifest.data.id}.`));
  return manifest.data;
}

/** The names in a directory that are ids; what else lies there is not ours. */
export async function idsIn<Kind extends IdKind>(kind: Kind, directory: string): Promise<Id<Kind>[]> {
  return (await namesIn(directory)).flatMap((name) => {
    const id = idSchema(kind).safeParse(name);
    return id.success ? [id.data] : [];
  });
}

/** Nothing where there is no such directory. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ENOTDIR")) return [];
    throw error;
  }
}
