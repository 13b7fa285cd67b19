/** What the health probes answer. */
import { z } from "zod";

/** `GET /health` and `GET /health/ready`. */
export const healthSchema = z.object({
  /** `ok` with 200, anything else with 503. Only `/health/ready` answers while the server starts or stops. */
  status: z.enum(["ok", "degraded", "starting", "stopping"]),
  version: z.string(),
  checks: z.object({ database: z.enum(["ok", "failed"]), hosts: z.enum(["ok", "failed"]) }),
});
export type Health = z.infer<typeof healthSchema>;

/** `GET /health/live`. */
export const livenessSchema = z.object({ status: z.literal("ok"), version: z.string() });
