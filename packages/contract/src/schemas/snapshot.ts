/** Named snapshots as the public API shows and takes them: templates that hold a sandbox's frozen memory and disk. */
import { z } from "zod";
import { pageLimits } from "../limits.ts";
import { namePattern } from "../names.ts";
import { sandboxIdSchema } from "./sandbox.ts";
import { wholeNumber } from "./whole-number.ts";

/** Whether it is a name is for `assertName` to say, with an error of its own. */
const snapshotNameSchema = z.string().meta({ pattern: namePattern.source, examples: ["after-setup"] });

/** Of every address below `/v1/snapshots/{name}`. */
export const snapshotParamsSchema = z.object({ name: snapshotNameSchema.describe("Name of a snapshot.") });

export const createSnapshotSchema = z
  .strictObject({
    sandbox_id: sandboxIdSchema.describe("The sandbox to take a snapshot of. It runs on, or stays paused."),
    name: snapshotNameSchema
      .optional()
      .describe("Its name as a template. Without it, one is made up: `snapshot-` and eight digits."),
    overwrite: z
      .boolean()
      .default(false)
      .describe("Whether a snapshot of your team that has the name already is replaced once the new one is complete."),
  })
  .meta({
    id: "CreateSnapshot",
    description: "What to take a snapshot of, and its name.",
    examples: [{ sandbox_id: "sb-0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b", name: "after-setup" }],
  });
export type CreateSnapshot = z.infer<typeof createSnapshotSchema>;

const exampleSnapshot = {
  id: "tpl-0199a1b3-0000-7abc-8def-0123456789ab",
  team_id: "team-0199a1b0-1111-7222-8333-444455556666",
  name: "after-setup",
  sandbox_id: "sb-0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b",
  vcpus: 1,
  memory_mib: 512,
  disk_mib: 5120,
  size_bytes: 31_457_280,
  host_id: "host-0199a1b0-7777-7888-8999-aaaabbbbcccc",
  engine: "qemu-kvm",
  engine_version: "7.2.22",
  cpu: "AMD EPYC 9354",
  disk_format: "qcow2",
  created_at: "2026-01-31T12:00:00.000Z",
};

export const snapshotSchema = z
  .object({
    id: z.string(),
    team_id: z.string().describe("Whose it is."),
    name: z.string().describe("What `template` of a create names."),
    sandbox_id: z.string().nullable().describe("The sandbox that it was taken of."),
    vcpus: z.number().int().describe("Of every sandbox that is started from it."),
    memory_mib: z.number().int().describe("Of every sandbox that is started from it, in MiB."),
    disk_mib: z.number().int().describe("Of every sandbox that is started from it, in MiB."),
    size_bytes: z.number().int().describe("Blocks on the host's disk that it alone made necessary when it was taken."),
    host_id: z.string().nullable().describe("The machine that has it."),
    engine: z.string().nullable().describe("What it was made by, and is started with."),
    engine_version: z.string().nullable().describe("Of that engine. Another version does not start it."),
    cpu: z.string().nullable().describe("The processor that its guest has found. It is started on no other."),
    disk_format: z.string().nullable().describe("How its disk is kept: `qcow2` or `dm-snapshot`."),
    created_at: z.iso.datetime(),
  })
  .meta({ id: "Snapshot", description: "A named snapshot.", examples: [exampleSnapshot] });
export type Snapshot = z.infer<typeof snapshotSchema>;

/** Without examples, which the page that tries the API would send where nothing else is asked for. */
export const listSnapshotsQuerySchema = z.strictObject({
  limit: wholeNumber(pageLimits).default(pageLimits.default).describe("How many snapshots a page has at most."),
  cursor: z
    .string()
    .meta({ pattern: "^tpl-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" })
    .optional()
    .describe("`next_cursor` of the page before."),
});

export const listSnapshotsSchema = z
  .object({
    snapshots: z.array(snapshotSchema).describe("Newest first."),
    next_cursor: z.string().nullable().describe("What to send as `cursor` for the next page; null on the last."),
  })
  .meta({ id: "SnapshotPage", description: "A page of snapshots." });
export type SnapshotPage = z.infer<typeof listSnapshotsSchema>;
