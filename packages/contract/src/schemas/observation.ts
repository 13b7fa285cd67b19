/** What can be seen of a sandbox from outside it: its console and what it uses right now. */
import { z } from "zod";
import { wholeNumber } from "./whole-number.ts";

export const consoleQuerySchema = z.strictObject({
  offset: wholeNumber({ min: 0 }).default(0).describe("`next_offset` of an earlier answer: only what came after it."),
});

export const consoleSchema = z
  .object({
    text: z.string().describe("What the guest's kernel and its first process printed, without terminal sequences."),
    offset: z
      .number()
      .int()
      .describe(
        "Where `text` begins, in bytes since the sandbox was started; more than was asked for when older output was dropped.",
      ),
    next_offset: z.number().int().describe("What to ask for next."),
  })
  .meta({ id: "Console", description: "A part of the console's output." });
export type Console = z.infer<typeof consoleSchema>;

export const metricsSchema = z
  .object({
    measured_at: z.iso.datetime(),
    cpu_count: z.number().int(),
    cpu_used_percent: z.number().describe("Of all processors together: 100 is all of them."),
    memory_total_bytes: z.number().int(),
    memory_used_bytes: z.number().int(),
    memory_cache_bytes: z.number().int(),
    disk_total_bytes: z.number().int(),
    disk_used_bytes: z.number().int(),
  })
  .meta({ id: "Metrics", description: "What the sandbox uses right now, as its guest measures it." });
export type Metrics = z.infer<typeof metricsSchema>;
