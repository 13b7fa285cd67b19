/** What may be asked of a sandbox that exists: a new timeout, copies, and a new start after its death. */
import { z } from "zod";
import { forkCount } from "../limits.ts";
import { createdSandboxSchema, metadataSchema, recoverySources, timeoutSecondsSchema } from "./sandbox.ts";

export const setTimeoutSchema = z.strictObject({ timeout_seconds: timeoutSecondsSchema }).meta({
  id: "SetTimeout",
  description: "A new timeout, counted from now on.",
  examples: [{ timeout_seconds: 3600 }],
});
export type SetTimeout = z.infer<typeof setTimeoutSchema>;

export const forkSandboxSchema = z
  .strictObject({
    count: z
      .number()
      .int()
      .min(forkCount.min)
      .max(forkCount.max)
      .default(forkCount.default)
      .describe("How many copies."),
    metadata: metadataSchema.optional().describe("Of each copy. Without it, the sandbox's own."),
    timeout_seconds: timeoutSecondsSchema.optional().describe("Of each copy. Without it, the sandbox's own."),
  })
  .meta({
    id: "ForkSandbox",
    description: "How many copies are to be made, and what is different about them. Everything may be left out.",
    examples: [{ count: 3, metadata: { branch: "experiment" } }, {}],
  });
export type ForkSandbox = z.infer<typeof forkSandboxSchema>;

export const forkedSandboxesSchema = z
  .object({ sandboxes: z.array(createdSandboxSchema).describe("As many as were asked for. All of them run.") })
  .meta({ id: "ForkedSandboxes", description: "The copies." });
export type ForkedSandboxes = z.infer<typeof forkedSandboxesSchema>;

export const recoverSandboxSchema = z
  .strictObject({
    from: z
      .enum(recoverySources)
      .describe(
        "`disk`: boots from the disk as the death left it, as after a power cut. `last_pause`: goes back to memory and disk of the last pause; what was written since is lost.",
      ),
  })
  .meta({ id: "RecoverSandbox", description: "What to start again from.", examples: [{ from: "disk" }] });
export type RecoverSandbox = z.infer<typeof recoverSandboxSchema>;
