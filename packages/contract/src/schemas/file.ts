/** Files in a sandbox, as the public API shows and takes them. */
import { z } from "zod";
import { fileLimits } from "../limits.ts";
import { wholeNumber } from "./whole-number.ts";

const path = z
  .string()
  .min(1)
  .max(fileLimits.pathBytes)
  .regex(/^[^\0]*$/, "a path has no NUL in it")
  .refine((text) => new TextEncoder().encode(text).length <= fileLimits.pathBytes, {
    message: `at most ${fileLimits.pathBytes} bytes`,
  })
  .meta({
    description: "Absolute, or relative to the user's home directory, which is also `~`.",
    examples: ["notes.txt"],
  });
const user = z
  .string()
  .min(1)
  .max(64)
  .optional()
  .describe("Name of the user of the sandbox who does it. Default: the sandbox's default user.");

export const pathQuerySchema = z.strictObject({ path, user });
export type PathQuery = z.infer<typeof pathQuerySchema>;

export const listFilesQuerySchema = pathQuerySchema.extend({
  depth: wholeNumber(fileLimits.listDepth)
    .default(fileLimits.listDepth.default)
    .describe(
      "1: the directory's own entries; 2: those of its directories as well; and so on. Links are not followed.",
    ),
});

export const watchQuerySchema = pathQuerySchema.extend({
  recursive: z
    .stringbool({ truthy: ["true", "1"], falsy: ["false", "0"] })
    .default(false)
    .meta({
      description: "Directories below as well, also those made later.",
      enum: ["true", "false"],
      default: "false",
    }),
});

export const makeDirectorySchema = z.strictObject({ path, user }).meta({
  id: "MakeDirectory",
  description: "Where the directory is to be.",
  examples: [{ path: "project/build" }],
});
export const moveSchema = z.strictObject({ source: path, destination: path, user }).meta({
  id: "Move",
  description: "From where to where.",
  examples: [{ source: "draft.txt", destination: "final.txt" }],
});

export const fileTypes = ["file", "directory", "symlink", "other"] as const;
export type FileType = (typeof fileTypes)[number];

export const fileEntrySchema = z
  .object({
    name: z.string(),
    path: z.string().describe("Absolute."),
    type: z
      .enum(fileTypes)
      .describe("Of a link, the type of what it leads to; `symlink` is a link that leads nowhere."),
    size: z.number().int().describe("Bytes."),
    mode: z.number().int().describe("Permission bits, as a number."),
    permissions: z.string().describe("As `ls -l` prints them: `-rw-r--r--`."),
    owner: z.string(),
    group: z.string(),
    modified_at: z.iso.datetime(),
    symlink_target: z.string().nullable().describe("Where a link leads, as it is written in it."),
  })
  .meta({
    id: "FileEntry",
    description: "What there is at a path.",
    examples: [
      {
        name: "run.sh",
        path: "/home/user/run.sh",
        type: "file",
        size: 120,
        mode: 493,
        permissions: "-rwxr-xr-x",
        owner: "user",
        group: "user",
        modified_at: "2026-01-31T12:00:00.000Z",
        symlink_target: null,
      },
    ],
  });
export type FileEntry = z.infer<typeof fileEntrySchema>;

export const listFilesSchema = z
  .object({ entries: z.array(fileEntrySchema) })
  .meta({ id: "FileList", description: "What is in the directory." });

export const fileChangeTypes = ["create", "write", "remove", "rename", "chmod"] as const;

/** The data of a `change` event of a watch. */
export const fileChangeSchema = z.object({
  type: z.enum(fileChangeTypes),
  /** Relative to the watched directory. */
  name: z.string(),
});
export type FileChange = z.infer<typeof fileChangeSchema>;
