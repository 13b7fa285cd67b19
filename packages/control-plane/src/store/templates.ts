/** Rows of templates. Those of snapshots are in snapshots.ts. */
import { platformTeamId } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { Store } from "./database.ts";
import type { TemplateRow } from "./schema.ts";

/** A team's own template of that name that sandboxes can be started from, or the platform's. The two never share a name. */
export async function findTemplate(store: Store, teamId: TeamId, name: string): Promise<TemplateRow | null> {
  const row = await store
    .selectFrom("templates")
    .selectAll()
    .where("name", "=", name)
    .where("team_id", "in", [teamId, platformTeamId])
    .where("status", "=", "ready")
    .executeTakeFirst();
  return row ?? null;
}

/** Which template has the name for this team: the team's own, also one that is being deleted, or the platform's. */
export async function findNameHolder(store: Store, teamId: TeamId, name: string): Promise<TemplateRow | null> {
  const row = await store
    .selectFrom("templates")
    .selectAll()
    .where("name", "=", name)
    .where("team_id", "in", [teamId, platformTeamId])
    .where("status", "<>", "creating")
    .where("deleted_at", "is", null)
    .executeTakeFirst();
  return row ?? null;
}
