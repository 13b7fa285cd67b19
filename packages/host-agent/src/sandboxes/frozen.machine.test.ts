/** Sandboxes that are paused, resumed, copied and kept as templates, in real VMs and by both ways of bringing memory back. */
import { hostAgentProto, newId, platformTeamId } from "@wrenn/contract";
import { pollUntil, signalProcess } from "@wrenn/system";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { execute } from "../testing/guest.ts";
import { engineOf, testToken, TestHostAgent } from "../testing/host-agent-process.ts";

const { SandboxState, RecoverySource } = hostAgentProto;

let agent: TestHostAgent;

const run = (id: string, command: string): Promise<string> => execute(agent.layout.hostAgentSocket, id, command);

async function create(overrides: Parameters<TestHostAgent["request"]>[0] = {}): Promise<string> {
  const request = agent.request(overrides);
  await agent.client.createSandbox(request);
  return request.sandboxId;
}

async function stateOf(id: string): Promise<hostAgentProto.SandboxState | undefined> {
  return (await agent.client.getSandbox({ sandboxId: id })).sandbox?.state;
}

const pause = (id: string): Promise<unknown> => agent.client.pauseSandbox({ sandboxId: id });
const resume = (id: string): Promise<unknown> => agent.client.resumeSandbox({ sandboxId: id, accessToken: testToken });

/** Fills memory with what cannot be guessed, leaves a process that counts, and a file on the disk. */
const occupy = [
  "dd if=/dev/urandom of=/dev/shm/random bs=1M count=8 2>/dev/null",
  "sha256sum /dev/shm/random > /root/sum",
  "setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n > /dev/shm/count; sleep 0.05; done' >/dev/null 2>&1 </dev/null &",
  "sleep 0.2",
].join("\n");

const check = "sha256sum -c /root/sum";

async function counter(id: string): Promise<number> {
  return Number(await run(id, "cat /dev/shm/count"));
}

async function goesOn(id: string): Promise<void> {
  const before = await counter(id);
  const after = await pollUntil(async () => ((await counter(id)) > before ? true : null), { timeoutMs: 10_000 });
  expect(after).toBe(true);
}

describe.each(["file", "uffd"] as const)("with memory brought back by %s", (memory) => {
  beforeAll(async () => {
    agent = await TestHostAgent.prepare({ WRENN_MEMORY: memory });
    await agent.start();
  });

  afterAll(async () => {
    await agent.remove();
  });

  afterEach(async () => {
    const { sandboxes } = await agent.client.listSandboxes({});
    for (const { sandboxId } of sandboxes) await agent.client.destroySandbox({ sandboxId });
  });

  it("a paused sandbox holds nothing but its frozen state, and goes on where it was", async () => {
    const id = await create();
    await run(id, occupy);
    await pause(id);
    const count = await stateOf(id);
    expect(count).toBe(SandboxState.PAUSED);
    const traces = await agent.traces();
    expect(traces).toMatchObject({ engines: [], cgroups: [] });
    await resume(id);
    await expect(run(id, check)).resolves.toContain("OK");
    await goesOn(id);
    const { sandbox } = await agent.client.getSandbox({ sandboxId: id });
    expect(sandbox?.memoryBackend).toBe(memory);
  });

  it("twelve rounds of pausing and resuming keep all that was written between them", async () => {
    const id = await create();
    await run(id, occupy);
    for (let round = 1; round <= 12; round++) {
      await run(
        id,
        `echo round ${round} >> /root/rounds; dd if=/dev/urandom of=/dev/shm/r${round} bs=64k count=4 2>/dev/null; sha256sum /dev/shm/r${round} >> /root/sum`,
      );
      await pause(id);
      await resume(id);
    }
    expect((await run(id, "cat /root/rounds")).trim().split("\n")).toHaveLength(12);
    expect((await run(id, check)).match(/OK/g)).toHaveLength(13);
    await goesOn(id);
  });

  it("copies of a running sandbox have its memory, processes and files, and a self of their own", async () => {
    const id = await create();
    await run(id, occupy);
    const forks = [newId("sandbox"), newId("sandbox")].map((sandboxId) => ({ sandboxId, accessToken: testToken }));
    await agent.client.forkSandbox({ sandboxId: id, accessToken: testToken, forks });
    const selves =
      "cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1";
    const seen = new Set<string>();
    for (const each of [id, ...forks.map(({ sandboxId }) => sandboxId)]) {
      await expect(run(each, check)).resolves.toContain("OK");
      await goesOn(each);
      for (const line of (await run(each, selves)).trim().split("\n")) {
        expect(seen).not.toContain(line);
        seen.add(line);
      }
    }
    await run(id, "echo source > /root/who");
    await expect(run(forks[0]?.sandboxId ?? "", "cat /root/who 2>/dev/null || echo nobody")).resolves.toBe("nobody\n");
  });

  it("a snapshot is a template, also once its sandbox is gone, and goes with its last user", async () => {
    const id = await create();
    await run(id, occupy);
    const template = { templateTeamId: platformTeamId, templateId: newId("template") };
    await agent.client.createSnapshot({ sandboxId: id, ...template });
    await goesOn(id);
    await run(id, "rm /dev/shm/random");
    await agent.client.destroySandbox({ sandboxId: id });
    const copy = await create({ ...template, templateAccessToken: testToken, accessToken: "another-token" });
    await agent.client.destroySandbox({ sandboxId: copy });
    const second = await create({ ...template, templateAccessToken: testToken });
    await agent.client.deleteSnapshot(template);
    await expect(run(second, check)).resolves.toContain("OK");
    await pause(second);
    await resume(second);
    await goesOn(second);
    await expect(agent.client.deleteSnapshot(template)).rejects.toMatchObject({ code: 5 });
  });

  it("one that dies after a resume is not restored by itself; its disk or its last pause are for the caller to choose", async () => {
    const id = await create();
    await run(id, occupy);
    await pause(id);
    await resume(id);
    await run(id, "echo later > /root/later; sync");
    await signalProcess(await engineOf(agent, id), "SIGKILL");
    const dead = await pollUntil(async () => ((await stateOf(id)) === SandboxState.DEAD ? true : null), {
      timeoutMs: 10_000,
    });
    expect(dead).toBe(true);
    await expect(resume(id)).rejects.toThrow(/died/);
    const { sandbox } = await agent.client.getSandbox({ sandboxId: id });
    expect(sandbox?.recoverable).toEqual(["disk", "last_pause"]);
    await agent.client.recoverSandbox({ sandboxId: id, source: RecoverySource.DISK, accessToken: testToken });
    await expect(run(id, "cat /root/later; ls /dev/shm")).resolves.toBe("later\n");
    await signalProcess(await engineOf(agent, id), "SIGKILL");
    await pollUntil(async () => ((await stateOf(id)) === SandboxState.DEAD ? true : null), { timeoutMs: 10_000 });
    await agent.client.recoverSandbox({ sandboxId: id, source: RecoverySource.LAST_PAUSE, accessToken: testToken });
    await expect(run(id, "cat /root/later 2>/dev/null || echo gone")).resolves.toBe("gone\n");
    await goesOn(id);
  });
});
