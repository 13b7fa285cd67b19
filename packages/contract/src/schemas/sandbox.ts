/** Sandboxes as the public API shows and takes them. */
import { z } from "zod";
import {
  environmentLimits,
  idempotencyKeyLength,
  metadataLimits,
  pageLimits,
  sandboxLimits,
  sandboxTimeoutSeconds,
} from "../limits.ts";
import { minimalTemplateName, namePattern } from "../names.ts";
import { sandboxStatuses } from "../sandbox-state.ts";
import { wholeNumber } from "./whole-number.ts";

const exampleId = "sb-0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";

const environmentName = z.string().regex(/^[^=\0]+$/, "a variable's name is not empty and has no '=' in it");

const idPattern = "^sb-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

/** In addresses. Whether it is one is for `parseId` to say, with an error of its own. */
export const sandboxIdSchema = z
  .string()
  .meta({ description: "Id of a sandbox.", pattern: idPattern, examples: [exampleId] });

/** Of every address below `/v1/sandboxes/{id}`. */
export const sandboxParamsSchema = z.object({ id: sandboxIdSchema });

export const environmentSchema = z
  .record(environmentName, z.string().regex(/^[^\0]*$/, "a value has no NUL in it"))
  .refine((envs) => Object.keys(envs).length <= environmentLimits.maxEntries, {
    message: `at most ${environmentLimits.maxEntries} variables`,
  })
  .refine((envs) => new TextEncoder().encode(JSON.stringify(envs)).length <= environmentLimits.maxBytes, {
    message: `at most ${environmentLimits.maxBytes} bytes in all`,
  })
  .meta({ maxProperties: environmentLimits.maxEntries, examples: [{ LANG: "C.UTF-8" }] });

/** PostgreSQL keeps neither a NUL nor half of a surrogate pair. */
const keepableText = z
  .string()
  .regex(/^[^\0]*$/, "has no NUL in it")
  .refine((text) => !/\p{Surrogate}/u.test(text), { message: "is well-formed Unicode" });

export const metadataSchema = z
  .record(keepableText.min(1).max(metadataLimits.maxKeyLength), keepableText.max(metadataLimits.maxValueLength))
  .refine((metadata) => Object.keys(metadata).length <= metadataLimits.maxEntries, {
    message: `at most ${metadataLimits.maxEntries} entries`,
  })
  .meta({
    description: "Names and values of your own, to find sandboxes by.",
    maxProperties: metadataLimits.maxEntries,
    examples: [{ purpose: "build", branch: "main" }],
  });

/** Has no default here: the sandboxes of a snapshot are as large as the snapshot, and a request that says otherwise is refused. */
function sized(range: { min: number; max: number; default: number }, what: string) {
  const text = `${what}. Without it, what the snapshot has that it is started from, else ${range.default}.`;
  return z.number().int().min(range.min).max(range.max).optional().describe(text);
}

export const timeoutSecondsSchema = z
  .number()
  .int()
  .min(sandboxTimeoutSeconds.min)
  .max(sandboxTimeoutSeconds.max)
  .nullable()
  .describe("Seconds without any use after which `on_timeout` happens; null for never.");

export const timeoutActions = ["pause", "destroy"] as const;
export type TimeoutAction = (typeof timeoutActions)[number];

const timeoutActionSchema = z
  .enum(timeoutActions)
  .describe("What happens to a sandbox that was idle for its whole timeout.");

/** Whether it is a name is for `assertName` to say, with an error of its own. */
const templateNameSchema = z.string().meta({ pattern: namePattern.source });

export const createSandboxSchema = z
  .strictObject({
    template: templateNameSchema.default(minimalTemplateName).describe("Name of the template to start from."),
    vcpus: sized(sandboxLimits.vcpus, "Virtual processors"),
    memory_mib: sized(sandboxLimits.memoryMib, "Memory, in MiB"),
    disk_mib: sized(sandboxLimits.diskMib, "Disk, in MiB; at least as large as the template's"),
    timeout_seconds: timeoutSecondsSchema.default(null),
    on_timeout: timeoutActionSchema.default("pause"),
    metadata: metadataSchema.default({}),
    envs: environmentSchema
      .default({})
      .describe("Environment of every process that is started in the sandbox. Never returned."),
  })
  .meta({
    id: "CreateSandbox",
    description: "What is to be created. Everything may be left out.",
    examples: [{ template: "minimal", memory_mib: 1024, timeout_seconds: 600, metadata: { purpose: "build" } }, {}],
  });
export type CreateSandbox = z.infer<typeof createSandboxSchema>;
export type CreateSandboxInput = z.input<typeof createSandboxSchema>;

/** Headers of a create, which has others too. */
export const createSandboxHeadersSchema = z.looseObject({
  "idempotency-key": z
    .string()
    .min(idempotencyKeyLength.min)
    .max(idempotencyKeyLength.max)
    .regex(/^[\x20-\x7e]*$/, "expected printable ASCII characters")
    .optional()
    .describe("Chosen by you. The same key with the same body, within a day: the same sandbox."),
});

/** What can be changed of a sandbox that exists; what is left out stays as it is. */
export const updateSandboxSchema = z
  .strictObject({
    metadata: metadataSchema.describe("Replaces all of it."),
    timeout_seconds: timeoutSecondsSchema.describe("Seconds, counted from now on; null for never."),
    on_timeout: timeoutActionSchema,
  })
  .partial()
  .refine((change) => Object.keys(change).length > 0, { message: "name at least one field to change" })
  .meta({
    id: "UpdateSandbox",
    description: "What is to be changed; what is left out stays as it is.",
    minProperties: 1,
    examples: [{ timeout_seconds: 3600 }],
  });
export type UpdateSandbox = z.infer<typeof updateSandboxSchema>;

const exampleSandbox = {
  id: exampleId,
  team_id: "team-0199a1b0-1111-7222-8333-444455556666",
  template: minimalTemplateName,
  status: "running",
  status_reason: null,
  vcpus: 1,
  memory_mib: 1024,
  disk_mib: 5120,
  metadata: { purpose: "build" },
  timeout_seconds: 600,
  on_timeout: "pause",
  expires_at: "2026-01-31T12:10:03.250Z",
  host_id: "host-0199a1b0-7777-7888-8999-aaaabbbbcccc",
  engine: "qemu-kvm",
  engine_reason: "KVM works: a guest kernel booted in it.",
  disk_format: "qcow2",
  memory_backend: "file",
  recoverable: [],
  created_at: "2026-01-31T12:00:00.000Z",
  started_at: "2026-01-31T12:00:03.250Z",
  paused_at: null,
} as const;

/** How a running sandbox gets the memory that it was frozen with: mapped from files, or page by page by a pager. */
export const memoryBackends = ["file", "uffd"] as const;
export type MemoryBackend = (typeof memoryBackends)[number];

/** What a sandbox that has died can be started from again. */
export const recoverySources = ["disk", "last_pause"] as const;
export type RecoverySource = (typeof recoverySources)[number];

export const statusReasonSchema = z.object({
  code: z.string().describe("A code of docs/errors.md."),
  message: z.string(),
});

export const sandboxSchema = z
  .object({
    id: sandboxIdSchema,
    team_id: z.string().describe("Whose it is."),
    template: z.string().describe("Name of the template that it was started from."),
    status: z.enum(sandboxStatuses),
    status_reason: statusReasonSchema
      .nullable()
      .describe("Why it is in `error`, `missing` or `stopped`, where there is more to say than the status does."),
    vcpus: z.number().int().describe("Virtual processors."),
    memory_mib: z.number().int().describe("Memory, in MiB."),
    disk_mib: z.number().int().describe("Disk, in MiB."),
    metadata: z.record(z.string(), z.string()).describe("As given at its creation, or changed since."),
    timeout_seconds: z.number().int().nullable().describe("Seconds without any use after which `on_timeout` happens."),
    on_timeout: z.enum(timeoutActions),
    expires_at: z.iso
      .datetime()
      .nullable()
      .describe("When it will have been idle for too long; null without a timeout, and where it does not run."),
    host_id: z.string().nullable().describe("The machine that it is on."),
    engine: z
      .string()
      .nullable()
      .describe(
        "What runs it: `firecracker`, `qemu-kvm` or `qemu-tcg` (software emulation); null until it has started.",
      ),
    engine_reason: z.string().nullable().describe("Why its host chose that engine, in a sentence."),
    disk_format: z
      .string()
      .nullable()
      .describe("How its disk is kept: `qcow2` or `dm-snapshot`; null until it has started."),
    memory_backend: z
      .enum(memoryBackends)
      .nullable()
      .describe(
        "How it gets the memory that it was frozen with: `file`, mapped from files, or `uffd`, page by page on demand. Null while it does not run.",
      ),
    recoverable: z
      .array(z.enum(recoverySources))
      .describe("What it can be recovered from after its virtual machine has died; empty unless it is in `error`."),
    created_at: z.iso.datetime(),
    started_at: z.iso.datetime().nullable().describe("When it first ran."),
    paused_at: z.iso.datetime().nullable().describe("Since when it is paused; null unless it is."),
  })
  .meta({ id: "Sandbox", description: "A sandbox.", examples: [exampleSandbox] });
export type Sandbox = z.infer<typeof sandboxSchema>;

export const createdSandboxSchema = sandboxSchema
  .extend({
    access_token: z.string().describe("Lets its bearer into this sandbox and nothing else, as `X-Access-Token`."),
  })
  .meta({
    id: "CreatedSandbox",
    description: "The sandbox, which runs.",
    examples: [{ ...exampleSandbox, access_token: "5f0c…" }],
  });
export type CreatedSandbox = z.infer<typeof createdSandboxSchema>;

const metadataPair = z.string().regex(/^[^=\0]+=[^\0]*$/, "expected key=value");

/** Without examples, which the page that tries the API would send where nothing else is asked for. */
export const listSandboxesQuerySchema = z.strictObject({
  limit: wholeNumber(pageLimits).default(pageLimits.default).describe("How many sandboxes a page has at most."),
  cursor: z.string().meta({ pattern: idPattern }).optional().describe("`next_cursor` of the page before."),
  status: z
    .string()
    .meta({ pattern: `^(${sandboxStatuses.join("|")})(,(${sandboxStatuses.join("|")}))*$` })
    .transform((text) => text.split(","))
    .pipe(z.array(z.enum(sandboxStatuses)))
    .optional()
    .describe("One status, or several separated by commas. Without it, all but `stopped`."),
  template: templateNameSchema.optional().describe("Name of a template."),
  metadata: z
    .union([metadataPair, z.array(metadataPair).max(metadataLimits.maxEntries)])
    .transform((given) => [given].flat())
    .transform((pairs) => pairs.map((pair) => splitPair(pair)))
    .refine((pairs) => new Set(pairs.map(([key]) => key)).size === pairs.length, { message: "names a key twice" })
    .transform((pairs) => Object.fromEntries(pairs))
    .optional()
    .describe("`key=value`, once or several times: sandboxes whose metadata has all of them."),
});
export type ListSandboxesQuery = z.infer<typeof listSandboxesQuerySchema>;

export const listSandboxesSchema = z
  .object({
    sandboxes: z.array(sandboxSchema).describe("Newest first."),
    next_cursor: z.string().nullable().describe("What to send as `cursor` for the next page; null on the last."),
  })
  .meta({ id: "SandboxPage", description: "A page of sandboxes." });
export type SandboxPage = z.infer<typeof listSandboxesSchema>;

function splitPair(pair: string): [string, string] {
  const at = pair.indexOf("=");
  return [pair.slice(0, at), pair.slice(at + 1)];
}
