/** Files in a sandbox, as the public API shows and takes them. */
import { z } from "zod";
import { fileLimits } from "../limits.ts";

const path = z
  .string()
  .min(1)
  .max(fileLimits.pathBytes)
  .regex(/^[^\0]*$/, "a path has no NUL in it")
  .refine((text) => new TextEncoder().encode(text).length <= fileLimits.pathBytes, {
    message: `at most ${fileLimits.pathBytes} bytes`,
  });
const user = z.string().min(1).max(64).optional();

/** A path: absolute, or relative to the user's home directory. `~` is that directory. */
export const pathQuerySchema = z.strictObject({ path, user });
export type PathQuery = z.infer<typeof pathQuerySchema>;

export const listFilesQuerySchema = pathQuerySchema.extend({
  /** 1: the directory's own entries; 2: those of its directories as well; and so on. Links are not followed. */
  depth: z.coerce
    .number()
    .int()
    .min(fileLimits.listDepth.min)
    .max(fileLimits.listDepth.max)
    .default(fileLimits.listDepth.default),
});

export const watchQuerySchema = pathQuerySchema.extend({
  /** Directories below as well, also those made later. */
  recursive: z.stringbool({ truthy: ["true", "1"], falsy: ["false", "0"] }).default(false),
});

export const makeDirectorySchema = z.strictObject({ path, user });
export const moveSchema = z.strictObject({ source: path, destination: path, user });

export const fileTypes = ["file", "directory", "symlink", "other"] as const;
export type FileType = (typeof fileTypes)[number];

export const fileEntrySchema = z.object({
  name: z.string(),
  /** Absolute. */
  path: z.string(),
  /** Of a link, the type of what it leads to; `symlink` is a link that leads nowhere. */
  type: z.enum(fileTypes),
  /** Bytes. */
  size: z.number().int(),
  /** Permission bits, as a number. */
  mode: z.number().int(),
  /** As `ls -l` prints them: `-rw-r--r--`. */
  permissions: z.string(),
  owner: z.string(),
  group: z.string(),
  modified_at: z.iso.datetime(),
  symlink_target: z.string().nullable(),
});
export type FileEntry = z.infer<typeof fileEntrySchema>;

export const listFilesSchema = z.object({ entries: z.array(fileEntrySchema) });

export const fileChangeTypes = ["create", "write", "remove", "rename", "chmod"] as const;

/** The data of a `change` event of a watch. */
export const fileChangeSchema = z.object({
  type: z.enum(fileChangeTypes),
  /** Relative to the watched directory. */
  name: z.string(),
});
export type FileChange = z.infer<typeof fileChangeSchema>;
