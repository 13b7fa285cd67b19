/** What the server says of itself to other commands: who it is, and how far it has come. */
import { isAlive, type Layout, processIdentitySchema, writeJsonDurably } from "@wrenn/system";
import { z } from "zod";
import { readPrivateJson } from "./root-only.ts";

const serverRecordSchema = z.object({
  identity: processIdentitySchema,
  state: z.enum(["starting", "ready", "stopping", "failed"]),
  /** Address of the control plane, once ready. */
  url: z.string().optional(),
  startedAt: z.iso.datetime(),
  /** Why it failed. */
  error: z.object({ code: z.string(), message: z.string(), suggestion: z.string() }).optional(),
});
export type ServerRecord = z.infer<typeof serverRecordSchema>;

export async function writeServerRecord(layout: Layout, record: ServerRecord): Promise<void> {
  await writeJsonDurably(layout.processRecord("server"), record);
}

/** The last server's record, also when it has ended. */
export async function readServerRecord(layout: Layout): Promise<ServerRecord | null> {
  const parsed = serverRecordSchema.safeParse(await readPrivateJson(layout.processRecord("server")));
  return parsed.success ? parsed.data : null;
}

/** The record of the server that runs now, or null. */
export async function readLiveServer(layout: Layout): Promise<ServerRecord | null> {
  const record = await readServerRecord(layout);
  return record !== null && (await isAlive(record.identity)) ? record : null;
}

/** The key of the local server, as its control plane leaves it. */
export const credentialsSchema = z.object({ url: z.string(), api_key: z.string(), team_id: z.string() });
export type Credentials = z.infer<typeof credentialsSchema>;

export async function readCredentials(layout: Layout): Promise<Credentials | null> {
  const parsed = credentialsSchema.safeParse(await readPrivateJson(layout.credentials));
  return parsed.success ? parsed.data : null;
}
