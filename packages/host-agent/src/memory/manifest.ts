/** The manifest of a generation: what one committed state of a sandbox is made of, and what it needs in order to run again. */
import { diskFormats, frozenDiskSchema, type IdKind, type Id, parseUuid } from "@wrenn/contract";
import { z } from "zod";
import { engineKinds } from "../engines/engine.ts";

export function idSchema<Kind extends IdKind>(kind: Kind): z.ZodType<Id<Kind>, string> {
  return z.uuid().transform((text) => parseUuid(kind, text));
}

/** What must be equal where a frozen VM runs again: its memory and the state of its devices depend on it. */
export const machineIdentitySchema = z.object({
  engine: z.enum(engineKinds),
  version: z.string(),
  cpu: z.string(),
  /** The part of the engine's configuration that decides which devices there are, and where. */
  machine: z.string(),
});
export type MachineIdentity = z.infer<typeof machineIdentitySchema>;

/** Names of files beside the manifest. */
const fileNameSchema = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/);

const frozenMemorySchema = z.object({
  /** Written anew under another name when the image is folded; this one counts. */
  header: fileNameSchema,
  /** Every layer that the header points to. */
  layers: z.array(idSchema("layer")),
  /** One layer in which everything lies where it lies in the guest's memory, so that it can be mapped as it is. */
  flat: z.boolean(),
  extents: z.number().int().nonnegative(),
});

export const generationManifestSchema = z.object({
  version: z.literal(1),
  id: idSchema("generation"),
  createdAt: z.iso.datetime(),
  /** Whose state it is; null for a golden snapshot, which is nobody's. */
  sandboxId: idSchema("sandbox").nullable(),
  template: z.object({ teamId: idSchema("team"), templateId: idSchema("template") }),
  vcpus: z.number().int().positive(),
  memoryMib: z.number().int().positive(),
  diskMib: z.number().int().positive(),
  machine: machineIdentitySchema,
  memory: frozenMemorySchema,
  deviceState: z.object({ bytes: z.number().int().positive(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
  disk: frozenDiskSchema.extend({
    layers: z.array(idSchema("layer")),
    /** States without it are older than the second format. */
    format: z.enum(diskFormats).default("qcow2"),
    /** How long the file of each layer is, in bytes: one that was cut is not started from. */
    bytes: z.array(z.number().int().nonnegative()),
  }),
  /** What this state takes on the disk beyond those it is built upon. */
  newBytes: z.number().int().nonnegative(),
});
export type GenerationManifest = z.infer<typeof generationManifestSchema>;

/** Every layer without which the state is lost. */
export function layersOf({
  memory,
  disk,
}: Pick<GenerationManifest, "memory" | "disk">): GenerationManifest["memory"]["layers"] {
  return [...memory.layers, ...disk.layers];
}
