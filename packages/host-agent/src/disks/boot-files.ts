/** What a VM boots, as the images' build left it: kernel, initramfs and a template's root filesystem. */
import { access, chmod, chown, stat } from "node:fs/promises";
import path from "node:path";
import {
  baseTemplateSchema,
  type BootManifest,
  bootManifestSchema,
  type GenerationId,
  platformTeamId,
  type TeamId,
  parseUuid,
  type TemplateId,
  type TemplateManifest,
  templateManifestSchema,
  WrennError,
} from "@wrenn/contract";
import { isMissingFile, type Layout, readJson } from "@wrenn/system";
import { passable } from "../directories.ts";
import { enginesGid } from "../engines/users.ts";

export interface BootFiles {
  readonly kernel: string;
  readonly initramfs: string;
  readonly kernelVersion: string;
}

export interface TemplateFiles {
  readonly type: "base";
  /** Absolute path of the raw root filesystem. */
  readonly rootfs: string;
  /** The least size of a disk over it. */
  readonly diskMib: number;
}

/** A template that is a sandbox's frozen state. */
export interface SnapshotFiles {
  readonly type: "snapshot";
  readonly generation: GenerationId;
}

/** @throws WrennError `boot_files_missing` */
export async function findBootFiles(layout: Layout): Promise<BootFiles> {
  const manifest = await readManifest<BootManifest>(layout.bootManifest, bootManifestSchema);
  if (manifest === null) throw missing(layout.bootManifest);
  const files = {
    kernel: path.join(layout.boot, manifest.kernel),
    initramfs: path.join(layout.boot, manifest.initramfs),
    kernelVersion: manifest.kernelVersion,
  };
  for (const file of [files.kernel, files.initramfs]) await assertThere(file);
  return files;
}

/**
 * Finds a template and makes the root filesystem of a base template readable by engines, and by them only.
 * @throws WrennError `template_not_found`, or `boot_files_missing` when a built-in template or a template's file is not there
 */
export async function findTemplate(
  layout: Layout,
  team: TeamId,
  template: TemplateId,
): Promise<TemplateFiles | SnapshotFiles> {
  const files = layout.template(team, template);
  const manifest = await readManifest<TemplateManifest>(files.manifest, templateManifestSchema);
  if (manifest === null) throw team === platformTeamId ? missing(files.manifest) : new WrennError("template_not_found");
  if ("generation" in manifest) {
    return { type: "snapshot", generation: parseUuid("generation", manifest.generation) };
  }
  const rootfs = files.rootfs(manifest.rootfs);
  await assertThere(rootfs);
  for (const directory of [path.dirname(files.directory), path.dirname(path.dirname(files.directory))]) {
    await hideNames(directory);
  }
  await restrictToEngines(rootfs);
  return { type: "base", rootfs, diskMib: manifest.diskMib };
}

/** Whether the template that a root filesystem was made for still has it, not a newer one. */
export async function isRootfsInUse(layout: Layout, rootfs: string): Promise<boolean> {
  const [team = "", template = "", fileName] = rootfs.split("/").slice(-3);
  const files = layout.template(parseUuid("team", team), parseUuid("template", template));
  const manifest = baseTemplateSchema.safeParse(await readJson(files.manifest));
  return manifest.success && manifest.data.rootfs === fileName;
}

/** Which teams and templates there are is nobody's business who can only pass through. */
async function hideNames(directory: string): Promise<void> {
  const { mode } = await stat(directory);
  if ((mode & 0o777) !== passable) await chmod(directory, passable);
}

async function restrictToEngines(file: string): Promise<void> {
  const { gid, mode } = await stat(file);
  if (gid !== enginesGid) await chown(file, 0, enginesGid);
  if ((mode & 0o777) !== 0o640) await chmod(file, 0o640);
}

interface ManifestSchema<Manifest> {
  safeParse(value: unknown): { success: true; data: Manifest } | { success: false; error: unknown };
}

async function readManifest<Manifest>(file: string, schema: ManifestSchema<Manifest>): Promise<Manifest | null> {
  const content = await readJson(file);
  if (content === null) return null;
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;
  throw new WrennError("boot_files_missing", { message: `${file} is not a manifest.`, cause: parsed.error });
}

async function assertThere(file: string): Promise<void> {
  try {
    await access(file);
  } catch (error) {
    throw isMissingFile(error) ? missing(file) : error;
  }
}

function missing(file: string): WrennError {
  return new WrennError("boot_files_missing", { message: `${file} does not exist on this host.`, details: { file } });
}
