/** What is kept ready for sandboxes may be missing, of the wrong kind, or too little: then a create makes it, and succeeds. */
import { rm } from "node:fs/promises";
import { afterEach, expect, it } from "vitest";
import { readGoldenRecords } from "../memory/golden-record.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { TestSandbox } from "../testing/test-sandbox.ts";

let agent: TestHostAgent;

afterEach(async () => {
  await agent.remove();
});

async function start(slotsReady: number): Promise<void> {
  agent = await TestHostAgent.prepare({ WRENN_SLOT_POOL: String(slotsReady) });
  await agent.start();
}

/** How a sandbox came to be, and that it is of use. */
async function origin(sandbox: TestSandbox): Promise<string> {
  expect(await sandbox.run("echo here")).toBe("here\n");
  return (await sandbox.describe()).generationId;
}

it.each([0, 1])("creates with %i slots ready get one more than there are", async (slotsReady) => {
  await start(slotsReady);
  const sandboxes = await Promise.all(Array.from({ length: slotsReady + 1 }, () => TestSandbox.create(agent)));
  expect(new Set(await Promise.all(sandboxes.map(origin))).size).toBe(1);
});

it("a create for which there is no golden snapshot makes one, and the next one uses it", async () => {
  await start(1);
  expect(await readGoldenRecords(agent.layout)).toEqual([]);
  const first = await origin(await TestSandbox.create(agent));
  expect((await readGoldenRecords(agent.layout)).map(({ generation }) => generation)).toEqual([first]);
  expect(await origin(await TestSandbox.create(agent))).toBe(first);
});

it("a golden snapshot of another size is not used, nor one that is damaged", async () => {
  await start(1);
  const small = await origin(await TestSandbox.create(agent));
  const large = await TestSandbox.create(agent, { memoryMib: 320 });
  expect(await origin(large)).not.toBe(small);
  expect(Number(await large.run("awk '/^MemTotal/ { print $2 }' /proc/meminfo"))).toBeGreaterThan(256 * 1_024);
  for (const { generation } of await readGoldenRecords(agent.layout)) {
    await rm(agent.layout.generation(generation).directory, { recursive: true });
  }
  await agent.restart();
  const anew = await origin(await TestSandbox.create(agent));
  expect(anew).not.toBe(small);
});
