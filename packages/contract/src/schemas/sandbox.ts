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
import { minimalTemplateName } from "../names.ts";
import { sandboxStatuses } from "../sandbox-state.ts";

const environmentName = z.string().regex(/^[^=\0]+$/, "a variable's name is not empty and has no '=' in it");

export const environmentSchema = z
  .record(environmentName, z.string().regex(/^[^\0]*$/, "a value has no NUL in it"))
  .refine((envs) => Object.keys(envs).length <= environmentLimits.maxEntries, {
    message: `at most ${environmentLimits.maxEntries} variables`,
  })
  .refine((envs) => new TextEncoder().encode(JSON.stringify(envs)).length <= environmentLimits.maxBytes, {
    message: `at most ${environmentLimits.maxBytes} bytes in all`,
  });

/** PostgreSQL keeps neither a NUL nor half of a surrogate pair. */
const keepableText = z
  .string()
  .regex(/^[^\0]*$/, "has no NUL in it")
  .refine((text) => !/\p{Surrogate}/u.test(text), { message: "is well-formed Unicode" });

export const metadataSchema = z
  .record(keepableText.min(1).max(metadataLimits.maxKeyLength), keepableText.max(metadataLimits.maxValueLength))
  .refine((metadata) => Object.keys(metadata).length <= metadataLimits.maxEntries, {
    message: `at most ${metadataLimits.maxEntries} entries`,
  });

function ranged(range: { min: number; max: number; default: number }) {
  return z.number().int().min(range.min).max(range.max).default(range.default);
}

/** Seconds without any use after which `on_timeout` happens; null for never. */
const timeoutSecondsSchema = z.number().int().min(sandboxTimeoutSeconds.min).max(sandboxTimeoutSeconds.max).nullable();

/** What happens to a sandbox that was idle for its whole timeout. */
export const timeoutActions = ["destroy"] as const;
export type TimeoutAction = (typeof timeoutActions)[number];

export const createSandboxSchema = z.strictObject({
  template: z.string().default(minimalTemplateName),
  vcpus: ranged(sandboxLimits.vcpus),
  memory_mib: ranged(sandboxLimits.memoryMib),
  disk_mib: ranged(sandboxLimits.diskMib),
  timeout_seconds: timeoutSecondsSchema.default(null),
  on_timeout: z.enum(timeoutActions).default("destroy"),
  metadata: metadataSchema.default({}),
  /** Environment of every process started in the sandbox. Never returned. */
  envs: environmentSchema.default({}),
});
export type CreateSandbox = z.infer<typeof createSandboxSchema>;
export type CreateSandboxInput = z.input<typeof createSandboxSchema>;

/** Headers of a create, which has others too. */
export const createSandboxHeadersSchema = z.looseObject({
  /** The same key with the same body, within a day: the same sandbox. */
  "idempotency-key": z
    .string()
    .min(idempotencyKeyLength.min)
    .max(idempotencyKeyLength.max)
    .regex(/^[\x20-\x7e]*$/, "expected printable ASCII characters")
    .optional(),
});

/** What can be changed of a sandbox that exists; what is left out stays as it is. */
export const updateSandboxSchema = z
  .strictObject({
    /** Replaces all of it. */
    metadata: metadataSchema,
    /** Counts from now on. */
    timeout_seconds: timeoutSecondsSchema,
    on_timeout: z.enum(timeoutActions),
  })
  .partial()
  .refine((change) => Object.keys(change).length > 0, { message: "name at least one field to change" });
export type UpdateSandbox = z.infer<typeof updateSandboxSchema>;

export const statusReasonSchema = z.object({ code: z.string(), message: z.string() });

export const sandboxSchema = z.object({
  id: z.string(),
  team_id: z.string(),
  template: z.string(),
  status: z.enum(sandboxStatuses),
  /** Why the sandbox is in `error`, `missing` or `stopped`, where there is more to say than the status does. */
  status_reason: statusReasonSchema.nullable(),
  vcpus: z.number().int(),
  memory_mib: z.number().int(),
  disk_mib: z.number().int(),
  metadata: z.record(z.string(), z.string()),
  timeout_seconds: z.number().int().nullable(),
  on_timeout: z.enum(timeoutActions),
  /** When it will have been idle for too long, unless it is used before; null without a timeout, and where it does not run. */
  expires_at: z.iso.datetime().nullable(),
  host_id: z.string().nullable(),
  /** `qemu-kvm` or `qemu-tcg`; null until it has started. */
  engine: z.string().nullable(),
  created_at: z.iso.datetime(),
  started_at: z.iso.datetime().nullable(),
});
export type Sandbox = z.infer<typeof sandboxSchema>;

/** A create's answer also carries what the guest agent demands as `X-Access-Token`. */
export const createdSandboxSchema = sandboxSchema.extend({ access_token: z.string() });
export type CreatedSandbox = z.infer<typeof createdSandboxSchema>;

export const listSandboxesQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(pageLimits.min).max(pageLimits.max).default(pageLimits.default),
  /** `next_cursor` of the page before. */
  cursor: z.string().optional(),
  /** One status, or several separated by commas. Without it, all but `stopped`. */
  status: z
    .string()
    .transform((text) => text.split(","))
    .pipe(z.array(z.enum(sandboxStatuses)))
    .optional(),
  /** Name of a template. */
  template: z.string().optional(),
  /** `key=value`, once or several times: sandboxes whose metadata has all of them. */
  metadata: z
    .union([z.string(), z.array(z.string())])
    .transform((given) => [given].flat())
    .pipe(z.array(z.string().regex(/^[^=\0]+=[^\0]*$/, "expected key=value")).max(metadataLimits.maxEntries))
    .transform((pairs) => pairs.map((pair) => splitPair(pair)))
    .refine((pairs) => new Set(pairs.map(([key]) => key)).size === pairs.length, { message: "names a key twice" })
    .transform((pairs) => Object.fromEntries(pairs))
    .optional(),
});
export type ListSandboxesQuery = z.infer<typeof listSandboxesQuerySchema>;

/** Newest first. `next_cursor` is null on the last page. */
export const listSandboxesSchema = z.object({ sandboxes: z.array(sandboxSchema), next_cursor: z.string().nullable() });
export type SandboxPage = z.infer<typeof listSandboxesSchema>;

function splitPair(pair: string): [string, string] {
  const at = pair.indexOf("=");
  return [pair.slice(0, at), pair.slice(at + 1)];
}
