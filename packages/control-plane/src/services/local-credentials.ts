/** The key of a one-machine server: made on its first start and kept in a file that only its owner can read. */
import { formatId, parseId } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import { readJson, writeJsonDurably } from "@wrenn/system";
import { sql } from "kysely";
import type { Logger } from "pino";
import { z } from "zod";
import { advisoryLocks } from "../store/advisory-lock.ts";
import type { Store } from "../store/database.ts";
import { findTeamByName, insertTeam } from "../store/teams.ts";
import type { ApiKeys } from "./api-keys.ts";

export const credentialsSchema = z.object({ url: z.string(), api_key: z.string(), team_id: z.string() });
export type Credentials = z.infer<typeof credentialsSchema>;

const localName = "local";

/**
 * Makes sure that the file names this server and holds a key that this database accepts. A file of another database, or
 * one that is damaged, is replaced. Replicas that start together take turns, so that they agree on one key.
 */
export async function ensureLocalCredentials(
  { store, apiKeys, log }: { store: Store; apiKeys: ApiKeys; log: Logger },
  file: string,
  url: string,
): Promise<Credentials> {
  return store.transaction().execute(async (transaction) => {
    await sql`SELECT pg_advisory_xact_lock(${advisoryLocks.localCredentials}::bigint)`.execute(transaction);
    const held = await readCredentials(file, log);
    const owner = held === null ? null : await apiKeys.find(held.api_key);
    if (held !== null && owner !== null) {
      const current: Credentials = { url, api_key: held.api_key, team_id: formatId("team", owner.teamId) };
      if (held.url !== current.url || held.team_id !== current.team_id) await writeJsonDurably(file, current);
      return current;
    }
    const teamId: TeamId = (await findTeamByName(transaction, localName)) ?? (await insertTeam(transaction, localName));
    const { key } = await apiKeys.create(teamId, localName, transaction);
    const made: Credentials = { url, api_key: key, team_id: formatId("team", teamId) };
    // Before the commit: if that fails, the file's key is unknown to the database and the next start makes another.
    await writeJsonDurably(file, made);
    log.info(
      { file },
      held === null ? "made a key for this machine" : "replaced a key that this database does not know",
    );
    return made;
  });
}

async function readCredentials(file: string, log: Logger): Promise<Credentials | null> {
  try {
    const content = await readJson(file);
    if (content === null) return null;
    const credentials = credentialsSchema.parse(content);
    parseId("team", credentials.team_id);
    return credentials;
  } catch (error) {
    log.warn({ err: error, file }, "the credentials file cannot be understood and is replaced");
    return null;
  }
}
