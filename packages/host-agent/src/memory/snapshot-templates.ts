/** Snapshot templates on this host: a small file each that names a generation, and so keeps it. */
import { rm } from "node:fs/promises";
import path from "node:path";
import {
  type GenerationId,
  parseUuid,
  type SnapshotTemplate,
  type TeamId,
  type TemplateId,
  templateManifestSchema,
  WrennError,
} from "@wrenn/contract";
import { type Layout, makeDirectory, readJson, syncDirectory, writeJsonDurably } from "@wrenn/system";
import { passable } from "../directories.ts";
import { idsIn } from "./read-manifest.ts";

export interface KeptSnapshot extends Omit<SnapshotTemplate, "generation"> {
  readonly generation: GenerationId;
  readonly teamId: TeamId;
  readonly templateId: TemplateId;
}

/**
 * Null when there is no snapshot template of that id.
 * @throws WrennError `snapshot_damaged` when what is there cannot be read: it may need anything
 */
export async function findSnapshot(
  layout: Layout,
  teamId: TeamId,
  templateId: TemplateId,
): Promise<KeptSnapshot | null> {
  const file = layout.template(teamId, templateId).manifest;
  const manifest = templateManifestSchema.nullable().safeParse(await readJson(file));
  if (!manifest.success) {
    throw new WrennError("snapshot_damaged", { message: `${file} is not a manifest.`, cause: manifest.error });
  }
  if (manifest.data === null || !("generation" in manifest.data)) return null;
  const { generation, sizeBytes } = manifest.data;
  return { generation: parseUuid("generation", generation), sizeBytes, teamId, templateId };
}

export async function keepSnapshot(layout: Layout, snapshot: KeptSnapshot): Promise<void> {
  const { generation, sizeBytes, teamId, templateId } = snapshot;
  const { directory, manifest } = layout.template(teamId, templateId);
  const ofTeam = path.dirname(directory);
  await makeDirectory(directory, passable);
  for (const made of [ofTeam, path.dirname(ofTeam)]) await syncDirectory(made);
  await writeJsonDurably(manifest, { generation, sizeBytes }, 0o600);
}

/** @throws WrennError `snapshot_not_found`; a base template is none, and is never removed by this */
export async function dropSnapshot(layout: Layout, teamId: TeamId, templateId: TemplateId): Promise<void> {
  if ((await findSnapshot(layout, teamId, templateId)) === null) throw new WrennError("snapshot_not_found");
  await removeSnapshot(layout, teamId, templateId);
}

/** Also one that is half there, or not at all. */
export async function removeSnapshot(layout: Layout, teamId: TeamId, templateId: TemplateId): Promise<void> {
  const { directory } = layout.template(teamId, templateId);
  await rm(directory, { recursive: true, force: true });
  await syncDirectory(path.dirname(directory));
}

/** @throws WrennError `snapshot_damaged` */
export async function listSnapshots(layout: Layout): Promise<KeptSnapshot[]> {
  const found: KeptSnapshot[] = [];
  for (const team of await idsIn("team", layout.teams)) {
    for (const template of await idsIn("template", path.join(layout.teams, team))) {
      const snapshot = await findSnapshot(layout, team, template);
      if (snapshot !== null) found.push(snapshot);
    }
  }
  return found;
}
