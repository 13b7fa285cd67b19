/** The two small files by which a host agent finds what its VMs boot: `boot/current.json` and a template's `template.json`. */
import { z } from "zod";

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
const safeName = "[A-Za-z0-9][A-Za-z0-9._-]*";

/** `boot/current.json`. Replaced as a whole; the directory it names is never changed in place. */
export const bootManifestSchema = z.object({
  /** Relative to `boot/`, as is `initramfs`. */
  kernel: z.string().regex(new RegExp(`^${safeName}/${safeName}$`)),
  initramfs: z.string().regex(new RegExp(`^${safeName}/${safeName}$`)),
  /** As `uname -r` says it in the guest. */
  kernelVersion: z.string().min(1),
  /** SHA-256 of the guest agent in the initramfs. */
  guestAgent: sha256Schema,
});
export type BootManifest = z.infer<typeof bootManifestSchema>;

/** `images/teams/<team>/<template>/template.json` of a base template. Replaced as a whole; the file it names is never changed in place. */
export const baseTemplateSchema = z.object({
  /** The root filesystem's file name, beside the manifest. */
  rootfs: z.string().regex(new RegExp(`^${safeName}$`)),
  /** The size of its file system: the least disk a sandbox of this template can have. */
  diskMib: z.number().int().positive(),
});

/** The same of a snapshot template: the frozen state that it keeps from being removed. */
export const snapshotTemplateSchema = z.object({ generation: z.uuid(), sizeBytes: z.number().int().nonnegative() });

/** What a template is, is told by what it has. */
export const templateManifestSchema = z.union([baseTemplateSchema, snapshotTemplateSchema]);
export type SnapshotTemplate = z.infer<typeof snapshotTemplateSchema>;
export type TemplateManifest = z.infer<typeof templateManifestSchema>;

/** The part of a frozen state's manifest (`generations/<uuid>/manifest.json`) by which one learns which root filesystem it needs. */
export const frozenDiskSchema = z.object({
  /** Ids of the layers, top first: each is laid over the next, the last over `rootfs`. */
  layers: z.array(z.uuid()),
  /** Absolute path of the raw root filesystem at the bottom. */
  rootfs: z.string().startsWith("/"),
});
