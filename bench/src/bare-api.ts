/**
 * The yardstick of the API's throughput, and the host agent that both sides lack: a process with a simulated host agent on
 * `WRENN_DIR/run/host-agent.sock`, and a Fastify application whose two routes run the control plane's statements and nothing else:
 * no keys, no schemas, no agent. Prints its address as a line, and ends with its standard input.
 */
import { SimulatedHostAgent } from "@wrenn/control-plane/testing";
import { newId, platformTeamId, minimalTemplateId } from "@wrenn/contract";
import { layoutFromEnvironment } from "@wrenn/system";
import { fastify } from "fastify";
import pg from "pg";
import { z } from "zod";

/** The control plane's pool has as many connections. */
const connections = 16;

/** So much that no number of sandboxes fills it. */
const hostMemoryMib = 1_000_000_000;

const byId = z.object({ id: z.string() });

const promised =
  "host_id, sum(memory_mib + 384) AS memory_mib, sum(vcpus) AS vcpus FROM sandboxes " +
  "WHERE status IN ('pending', 'starting', 'running', 'snapshotting', 'pausing', 'resuming', 'missing', 'stopping')";

const statements = {
  template: "SELECT * FROM templates WHERE name = $1 AND team_id IN ($2, $3)",
  loads:
    "SELECT hosts.*, used.memory_mib AS used_memory_mib, used.vcpus AS used_vcpus FROM hosts LEFT JOIN " +
    `(SELECT ${promised} GROUP BY host_id) AS used ON used.host_id = hosts.id ORDER BY hosts.id`,
  usage: `SELECT ${promised} AND host_id = $1 GROUP BY host_id`,
  lockHost: "SELECT cpu_count, memory_mib FROM hosts WHERE id = $1 FOR UPDATE",
  insert:
    "WITH inserted AS (INSERT INTO sandboxes (id, team_id, template_id, template_team_id, host_id, status, vcpus, memory_mib, disk_mib, metadata, deadline_at) " +
    "VALUES ($1, $2, $3, $2, $4, 'starting', 1, 128, 5120, '{}', now() + interval '150 seconds') RETURNING *), event AS (INSERT INTO " +
    "sandbox_events (id, sandbox_id, version, to_status) SELECT $5, id, version, status FROM inserted) SELECT * FROM inserted",
  run:
    "WITH changed AS (UPDATE sandboxes SET status = 'running', version = version + 1, deadline_at = NULL, engine = 'qemu-tcg', " +
    "started_at = now() WHERE id = $1 AND status = 'starting' AND version = 1 RETURNING *), event AS (INSERT INTO sandbox_events " +
    "(id, sandbox_id, version, from_status, to_status) SELECT $2, id, version, 'starting', status FROM changed) SELECT * FROM changed",
  get:
    "SELECT sandboxes.*, templates.name AS template FROM sandboxes INNER JOIN templates ON templates.id = sandboxes.template_id " +
    "WHERE sandboxes.id = $1",
} as const;

const pool = new pg.Pool({ connectionString: process.env["DATABASE_URL"], max: connections });
const app = fastify();

app.get(
  "/sandboxes/:id",
  async (request) => (await pool.query(statements.get, [byId.parse(request.params).id])).rows[0],
);

app.post("/sandboxes", async (_request, reply) => {
  const [{ rows: hosts }] = await Promise.all([
    pool.query(statements.loads),
    pool.query(statements.template, ["minimal", platformTeamId, platformTeamId]),
  ]);
  const [host] = z.array(byId).parse(hosts);
  if (host === undefined) throw new Error("the database has no host");
  const id = newId("sandbox");
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query(statements.lockHost, [host.id]);
    await client.query(statements.usage, [host.id]);
    await client.query(statements.insert, [id, platformTeamId, minimalTemplateId, host.id, newId("event")]);
    await client.query("COMMIT");
  } finally {
    client.release();
  }
  const { rows } = await pool.query(statements.run, [id, newId("event")]);
  return reply.code(201).send(rows[0]);
});

const agent = await SimulatedHostAgent.start(layoutFromEnvironment().hostAgentSocket);
agent.memoryMib = hostMemoryMib;
agent.cpuCount = hostMemoryMib;
console.log(await app.listen({ host: "127.0.0.1", port: 0 }));

process.stdin.resume().on("end", () => {
  Promise.all([app.close(), agent.stop()])
    .then(() => pool.end())
    .then(
      () => process.exit(0),
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
});
