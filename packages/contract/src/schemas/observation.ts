/** What can be seen of a sandbox from outside it: its console and what it uses right now. */
import { z } from "zod";

export const consoleQuerySchema = z.strictObject({
  /** `next_offset` of an earlier answer: only what came after it. */
  offset: z.coerce.number().int().min(0).default(0),
});

export const consoleSchema = z.object({
  /** What the guest's kernel and its first process printed, without terminal sequences. */
  text: z.string(),
  /** Where `text` begins, in bytes since the sandbox was started; more than the offset asked for when older output was dropped. */
  offset: z.number().int(),
  next_offset: z.number().int(),
});
export type Console = z.infer<typeof consoleSchema>;

/** As the guest itself measures them; bytes, and percent of all its processors. */
export const metricsSchema = z.object({
  measured_at: z.iso.datetime(),
  cpu_count: z.number().int(),
  cpu_used_percent: z.number(),
  memory_total_bytes: z.number().int(),
  memory_used_bytes: z.number().int(),
  memory_cache_bytes: z.number().int(),
  disk_total_bytes: z.number().int(),
  disk_used_bytes: z.number().int(),
});
export type Metrics = z.infer<typeof metricsSchema>;
