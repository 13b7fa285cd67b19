import { readFile, stat } from "node:fs/promises";
import { expect, test } from "vitest";
import { guestAgentFile, startGuestAgent } from "./harness.ts";
import { observe, shell } from "./process-events.ts";

const mib = 1024 * 1024;

function residentKib(pid: number): Promise<number> {
  return readFile(`/proc/${pid}/status`, "utf8").then((status) => Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]));
}

test("the binary is static and at most 4 MiB", async () => {
  expect((await stat(guestAgentFile)).size).toBeLessThanOrEqual(4 * mib);
  const header = await readFile(guestAgentFile);
  // A program header of type PT_INTERP (3) would name a dynamic linker.
  const [offset, size, count] = [Number(header.readBigUInt64LE(32)), header.readUInt16LE(54), header.readUInt16LE(56)];
  const types = Array.from({ length: count }, (_, index) => header.readUInt32LE(offset + index * size));
  expect(types).not.toContain(3);
});

test("the idle agent is resident in at most 4 MiB, also after work", async () => {
  const agent = await startGuestAgent();
  try {
    expect(await residentKib(agent.pid)).toBeLessThanOrEqual(4 * 1024);
    await Promise.all(
      Array.from({ length: 20 }, () => observe(agent.process().start(shell("head -c 1000000 /dev/zero")))),
    );
    expect(await residentKib(agent.pid)).toBeLessThanOrEqual(8 * 1024);
  } finally {
    await agent.stop();
  }
});
