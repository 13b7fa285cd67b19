import { newId, sandboxStatuses } from "@wrenn/contract";
import type { SandboxStatus } from "@wrenn/contract";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestServer } from "../testing/test-server.ts";

interface Made {
  readonly id: string;
  readonly status: SandboxStatus;
  readonly template: string;
  readonly metadata: Record<string, string>;
}

let server: TestServer;
/** Newest first, as lists are. */
const made: Made[] = [];

const keys = ["purpose", "owner", "ключ", "a b&c", "__proto__x"];
const values = ["", "x", "x=y", "\"'\\%_", "日本 🐦"];
const templates = ["minimal", "python", "node.js"];

beforeAll(async () => {
  server = await TestServer.start({ reconcileMs: 3_600_000 });
  const [team] = await server.query<{ team_id: string }>("SELECT team_id FROM api_keys");
  for (const name of templates.slice(1)) {
    await server.query(
      "INSERT INTO templates (id, team_id, name, type, disk_mib) VALUES (gen_random_uuid(), $1, $2, 'base', 5120)",
      [team?.team_id, name],
    );
  }
  const sample = fc.record({
    status: fc.constantFrom(...sandboxStatuses),
    template: fc.constantFrom(...templates),
    metadata: fc.dictionary(fc.constantFrom(...keys), fc.constantFrom(...values)),
  });
  for (const sandbox of fc.sample(sample, 60)) {
    const id = newId("sandbox");
    await server.query(
      `INSERT INTO sandboxes (id, team_id, template_id, template_team_id, status, vcpus, memory_mib, disk_mib, metadata)
       SELECT $1, $2, id, team_id, $3, 1, 512, 5120, $4 FROM templates WHERE name = $5`,
      [id, team?.team_id, sandbox.status, JSON.stringify(sandbox.metadata), sandbox.template],
    );
    made.unshift({ id: `sb-${id}`, ...sandbox });
  }
});
afterAll(async () => server.stop());

/** All pages of a list. */
async function listed(query: URLSearchParams): Promise<Made[]> {
  const seen: Made[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    if (cursor !== "") query.set("cursor", cursor);
    const { status, body } = await server.call("GET", `/v1/sandboxes?${query.toString()}`);
    expect(status).toBe(200);
    const page = body as unknown as { sandboxes: Made[]; next_cursor: string | null };
    seen.push(...page.sandboxes);
    cursor = page.next_cursor;
  }
  return seen;
}

test("a list has the sandboxes that all its filters name, newest first, each once, whatever the size of its pages", async () => {
  const filters = fc.record(
    {
      status: fc.uniqueArray(fc.constantFrom(...sandboxStatuses), { minLength: 1 }),
      template: fc.constantFrom(...templates, "elsewhere"),
      metadata: fc.dictionary(fc.constantFrom(...keys), fc.constantFrom(...values), { minKeys: 1, maxKeys: 2 }),
      limit: fc.integer({ min: 1, max: 70 }),
    },
    { requiredKeys: ["limit"] },
  );
  await fc.assert(
    fc.asyncProperty(filters, async ({ status, template, metadata, limit }) => {
      const query = new URLSearchParams({ limit: String(limit) });
      if (status !== undefined) query.set("status", status.join(","));
      if (template !== undefined) query.set("template", template);
      for (const [key, value] of Object.entries(metadata ?? {})) query.append("metadata", `${key}=${value}`);
      const expected = made.filter(
        (sandbox) =>
          (status === undefined ? sandbox.status !== "stopped" : status.includes(sandbox.status)) &&
          (template === undefined || sandbox.template === template) &&
          Object.entries(metadata ?? {}).every(([key, value]) => sandbox.metadata[key] === value),
      );
      expect((await listed(query)).map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
    }),
    { numRuns: 60 },
  );
});

test("metadata comes back as it was given", async () => {
  const all = await listed(new URLSearchParams({ status: sandboxStatuses.join(",") }));
  expect(all.map(({ metadata }) => metadata)).toEqual(made.map(({ metadata }) => metadata));
});

test.each([
  ["no equals sign", "?metadata=purpose"],
  ["no key", "?metadata==x"],
  ["a NUL", "?metadata=a%3D%00"],
  ["a key twice", "?metadata=a=1&metadata=a=2"],
  ["a status that there is not", "?status=running,sleeping"],
  ["no status", "?status="],
])("a list filtered by %s is refused", async (_what, query) => {
  const { status, body } = await server.call("GET", `/v1/sandboxes${query}`);
  expect([status, body]).toMatchObject([400, { error: { code: "invalid_request" } }]);
});

test("a list filtered by a template's name that could be a path is refused", async () => {
  const { status, body } = await server.call("GET", "/v1/sandboxes?template=../etc");
  expect([status, body]).toMatchObject([400, { error: { code: "invalid_name" } }]);
});

test("bytes that are no text find nothing and harm nothing", async () => {
  const { status, body } = await server.call("GET", "/v1/sandboxes?metadata=a=%ED%A0%80");
  expect([status, body]).toEqual([200, { sandboxes: [], next_cursor: null }]);
});

test("metadata is looked up in an index", async () => {
  const [team] = await server.query<{ team_id: string }>("SELECT team_id FROM api_keys");
  await server.query(
    `INSERT INTO sandboxes (id, team_id, template_id, template_team_id, status, vcpus, memory_mib, disk_mib, metadata)
     SELECT gen_random_uuid(), $1, id, team_id, 'stopped', 1, 512, 5120, jsonb_build_object('number', n::text)
     FROM templates, generate_series(1, 5000) AS n WHERE name = 'minimal'`,
    [team?.team_id],
  );
  await server.query("ANALYZE sandboxes");
  const plan = await server.query(
    `EXPLAIN SELECT id FROM sandboxes WHERE team_id = $1 AND metadata @> '{"number": "77"}' ORDER BY id DESC LIMIT 100`,
    [team?.team_id],
  );
  expect(JSON.stringify(plan)).toContain("sandboxes_metadata");
  const query = new URLSearchParams({ metadata: "number=77", status: "stopped" });
  expect((await listed(query)).map(({ metadata }) => metadata)).toEqual([{ number: "77" }]);
});
