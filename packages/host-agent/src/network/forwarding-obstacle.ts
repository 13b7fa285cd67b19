/**
 * Whether another firewall on the host keeps sandboxes from the Internet. In netfilter a packet passes every table: what Wrenn's
 * accepts, another may still drop. Docker, ufw and firewalld do so with all forwarded traffic they have no rule for.
 */
import { readFile } from "node:fs/promises";
import { deadlines } from "@wrenn/contract";
import { findProgram, isMissingFile, run } from "@wrenn/system";
import { z } from "zod";

const rulesetSchema = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
      rule: z
        .object({
          family: z.string(),
          table: z.string(),
          chain: z.string(),
          expr: z.array(z.record(z.string(), z.unknown())),
        })
        .optional(),
    }),
  ),
});

type Rule = NonNullable<z.infer<typeof rulesetSchema>["nftables"][number]["rule"]>;

const ipv4Families = new Set(["ip", "inet"]);

/** Statements that do not narrow down which packets a rule is about. */
const unconditional = new Set(["counter", "log", "drop", "reject"]);

/**
 * A sentence on what keeps sandboxes of this instance from the Internet and what to do, or null when nothing is seen to.
 * @param instance as in NetworkConfig.
 * @throws WrennError `dependency_missing` without nft, `subprocess_failed` without the right to use it.
 */
export async function forwardingObstacle(instance = ""): Promise<string | null> {
  const { stdout } = await run("nft", ["--json", "list", "ruleset"], { timeoutMs: deadlines.networkCommand });
  return obstacleIn(JSON.parse(stdout), instance) ?? (await legacyObstacle(instance));
}

/** As `forwardingObstacle`, of a ruleset as nft prints it in JSON. */
export function obstacleIn(ruleset: unknown, instance: string): string | null {
  const items = rulesetSchema.parse(ruleset).nftables;
  const rules = items.flatMap(({ rule }) => (rule === undefined ? [] : [rule]));
  for (const { chain } of items) {
    if (chain?.hook !== "forward" || !ipv4Families.has(chain.family) || /^wrenn(_[0-9a-f]{4})?$/.test(chain.table))
      continue;
    const ofTable = rules.filter((rule) => rule.family === chain.family && rule.table === chain.table);
    const last = ofTable.findLast((rule) => rule.chain === chain.name);
    const dropsTheRest = chain.policy === "drop" || (last !== undefined && dropsEverything(last));
    if (dropsTheRest && !ofTable.some((rule) => acceptsSlots(rule, instance))) {
      return `The firewall chain ${chain.name} of table ${chain.family} ${chain.table} drops what sandboxes send. ${remedy(instance)}`;
    }
  }
  return null;
}

/** Rules of the older iptables, which nft does not show. */
async function legacyObstacle(instance: string): Promise<string | null> {
  if (!(await legacyTables()).includes("filter") || (await findProgram("iptables-legacy")) === null) return null;
  const { stdout } = await run("iptables-legacy", ["-S", "FORWARD"], { timeoutMs: deadlines.networkCommand });
  const lines = stdout.split("\n");
  const accepted = lines.some((line) => line.includes(`-i ${linkPrefix(instance)}+`) && line.endsWith("-j ACCEPT"));
  return lines.includes("-P FORWARD DROP") && !accepted
    ? `The firewall chain FORWARD of iptables-legacy drops what sandboxes send. ${remedy(instance)}`
    : null;
}

async function legacyTables(): Promise<string[]> {
  try {
    return (await readFile("/proc/net/ip_tables_names", "utf8")).split("\n");
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}

function dropsEverything(rule: Rule): boolean {
  const statements = rule.expr.flatMap((statement) => Object.keys(statement));
  return (
    statements.every((statement) => unconditional.has(statement)) &&
    statements.some((statement) => statement === "drop" || statement === "reject")
  );
}

/** Whether a rule lets out what comes from slots' interfaces, by name. */
function acceptsSlots(rule: Rule, instance: string): boolean {
  return (
    rule.expr.some((statement) => "accept" in statement) &&
    rule.expr.some((statement) => isAboutSlots(statement, instance))
  );
}

const interfaceMatch = z.object({
  match: z.object({
    op: z.literal("=="),
    left: z.object({ meta: z.object({ key: z.literal("iifname") }) }),
    right: z.string(),
  }),
});

function isAboutSlots(statement: unknown, instance: string): boolean {
  const parsed = interfaceMatch.safeParse(statement);
  return parsed.success && parsed.data.match.right === `${linkPrefix(instance)}*`;
}

function linkPrefix(instance: string): string {
  return `wr${instance}-`;
}

function remedy(instance: string): string {
  const links = `'${linkPrefix(instance)}+'`;
  return (
    `Let them through: iptables -I FORWARD -i ${links} -j ACCEPT; ` +
    `iptables -I FORWARD -o ${links} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT ` +
    "(with Docker, use its chain DOCKER-USER). Wrenn's own rules still keep them from private networks."
  );
}
