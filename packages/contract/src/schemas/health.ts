/** What the health probes answer. */
import { z } from "zod";

/** `GET /health` and `GET /health/ready`. */
export const healthSchema = z
  .object({
    status: z
      .enum(["ok", "degraded", "starting", "stopping"])
      .describe(
        "`ok` with 200, anything else with 503. Only `/health/ready` answers while the server starts or stops.",
      ),
    version: z.string(),
    checks: z.object({
      database: z.enum(["ok", "failed"]),
      hosts: z.enum(["ok", "failed"]),
      reconciliation: z
        .enum(["ok", "held_back"])
        .describe(
          "`held_back` when database and hosts disagree about so much that an operator has to decide which is right; " +
            "the log says about what. It is no reason for 503.",
        )
        .optional(),
    }),
  })
  .meta({ id: "Health", description: "How the server is." });
export type Health = z.infer<typeof healthSchema>;

/** `GET /health/live`. */
export const livenessSchema = z
  .object({ status: z.literal("ok"), version: z.string() })
  .meta({ id: "Liveness", description: "It lives." });
