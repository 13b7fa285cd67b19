/** What `GET /health` answers. */
import { z } from "zod";

export const healthSchema = z.object({
  status: z.enum(["ok", "degraded"]),
  version: z.string(),
  checks: z.object({ database: z.enum(["ok", "failed"]), hosts: z.enum(["ok", "failed"]) }),
});
export type Health = z.infer<typeof healthSchema>;
