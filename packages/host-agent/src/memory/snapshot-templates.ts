/** Snapshot templates on this host: a small file each that names a generation, and so keeps it. */
import { mkdir, readdir, rm } from "node:fs/promises";
import path from "node:path";
import {
  type GenerationId,
  parseUuid,
  type SnapshotTemplate,
  snapshotTemplateSchema,
  type TeamId,
  type TemplateId,
  WrennError,
} from "@wrenn/contract";
import { isMissingFile, type Layout, readJson, syncDirectory, writeJsonDurably } from "@wrenn/system";
import { passable } from "../directories.ts";

export interface KeptSnapshot extends Omit<SnapshotTemplate, "generation"> {
  readonly generation: GenerationId;
  readonly teamId: TeamId;
  readonly templateId: TemplateId;
}

/** Null when there is no snapshot template of that id. */
export async function findSnapshot(
  layout: Layout,
  teamId: TeamId,
  templateId: TemplateId,
): Promise<KeptSnapshot | null> {
  const parsed = snapshotTemplateSchema.safeParse(await readJson(layout.template(teamId, templateId).manifest));
  if (!parsed.success) return null;
  const { generation, sizeBytes } = parsed.data;
  return { generation: parseUuid("generation", generation), sizeBytes, teamId, templateId };
}

export async function keepSnapshot(layout: Layout, snapshot: KeptSnapshot): Promise<void> {
  const { generation, sizeBytes, teamId, templateId } = snapshot;
  const { directory, manifest } = layout.template(teamId, templateId);
  const ofTeam = path.dirname(directory);
  await mkdir(directory, { recursive: true, mode: passable });
  for (const made of [ofTeam, path.dirname(ofTeam)]) await syncDirectory(made);
  await writeJsonDurably(manifest, { generation, sizeBytes }, 0o600);
}

/** @throws WrennError `snapshot_not_found`; a base template is none, and is never removed by this */
export async function dropSnapshot(layout: Layout, teamId: TeamId, templateId: TemplateId): Promise<void> {
  if ((await findSnapshot(layout, teamId, templateId)) === null) throw new WrennError("snapshot_not_found");
  const { directory } = layout.template(teamId, templateId);
  await rm(directory, { recursive: true });
  await syncDirectory(path.dirname(directory));
}

export async function listSnapshots(layout: Layout): Promise<KeptSnapshot[]> {
  const found: KeptSnapshot[] = [];
  for (const team of await names(layout.teams)) {
    for (const template of await names(path.join(layout.teams, team))) {
      const snapshot = await findSnapshot(layout, parseUuid("team", team), parseUuid("template", template));
      if (snapshot !== null) found.push(snapshot);
    }
  }
  return found;
}

async function names(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
