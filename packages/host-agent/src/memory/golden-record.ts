/** The small files that say which golden snapshots there are. A golden snapshot is a cache: a record that cannot be read is none. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { diskFormats } from "@wrenn/contract";
import { isMissingFile, type Layout, readJson } from "@wrenn/system";
import { z } from "zod";
import { idSchema, machineIdentitySchema } from "./manifest.ts";
import { namesIn } from "./read-manifest.ts";

/** All that decides what a VM is like right after its boot. */
export const goldenShapeSchema = z.object({
  /** Absolute paths of files that are never changed in place. The initramfs holds the guest agent. */
  rootfs: z.string(),
  kernel: z.string(),
  initramfs: z.string(),
  vcpus: z.number().int().positive(),
  memoryMib: z.number().int().positive(),
  diskMib: z.number().int().positive(),
  machine: machineIdentitySchema,
  /** Records without it are older than the second format. */
  diskFormat: z.enum(diskFormats).default("qcow2"),
});
export type GoldenShape = z.infer<typeof goldenShapeSchema>;

const goldenRecordSchema = z.object({
  version: z.literal(1),
  shape: goldenShapeSchema,
  generation: idSchema("generation"),
});

export interface GoldenRecord extends z.infer<typeof goldenRecordSchema> {
  readonly key: string;
  /** The time of the record's file: a use costs no write that must last. */
  readonly lastUsed: Date;
}

/** The same for equal shapes, however they were put together. */
export function goldenKey(shape: GoldenShape): string {
  // A parsed object has its keys in the schema's order.
  const { diskFormat, ...rest } = goldenShapeSchema.parse(shape);
  // What is left out for qcow2 was not there when there was nothing else, and those records are to be found.
  const keyed = diskFormat === "qcow2" ? rest : { ...rest, diskFormat };
  return createHash("sha256").update(JSON.stringify(keyed)).digest("hex");
}

export async function readGoldenRecord(layout: Layout, key: string): Promise<GoldenRecord | null> {
  const file = layout.goldenRecord(key);
  try {
    const record = goldenRecordSchema.safeParse(await readJson(file));
    if (!record.success || goldenKey(record.data.shape) !== key) return null;
    return { ...record.data, key, lastUsed: (await stat(file)).mtime };
  } catch (error) {
    if (error instanceof SyntaxError || isMissingFile(error)) return null;
    throw error;
  }
}

export async function readGoldenRecords(layout: Layout): Promise<GoldenRecord[]> {
  const keys = (await namesIn(layout.golden)).flatMap((name) => /^([0-9a-f]{64})\.json$/.exec(name)?.[1] ?? []);
  const records = await Promise.all(keys.map((key) => readGoldenRecord(layout, key)));
  return records.filter((record) => record !== null);
}
