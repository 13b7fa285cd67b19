/** Rows of templates. */
import { platformTeamId } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { Store } from "./database.ts";
import type { TemplateRow } from "./schema.ts";

/** A team's own template of that name, or the platform's. The two never share a name. */
export async function findTemplate(store: Store, teamId: TeamId, name: string): Promise<TemplateRow | null> {
  const row = await store
    .selectFrom("templates")
    .selectAll()
    .where("name", "=", name)
    .where("team_id", "in", [teamId, platformTeamId])
    .executeTakeFirst();
  return row ?? null;
}
