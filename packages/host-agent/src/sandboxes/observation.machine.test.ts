/** What a host agent lets be seen of a sandbox: its console, and a log of its own that gives away no secret. */
import { guestAgentPort, type hostAgentProto } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, expect, it } from "vitest";
import { execute, openTunnel, readAll } from "../testing/guest.ts";
import { TestHostAgent, testToken } from "../testing/host-agent-process.ts";

const secret = "recognisable-secret";

let agent: TestHostAgent;
let id: string;

beforeAll(async () => {
  agent = await TestHostAgent.prepare({ WRENN_LOG_LEVEL: "trace" });
  await agent.start();
  const { sandbox } = await agent.client.createSandbox(agent.request({ envs: { PASSWORD: `env-${secret}` } }));
  id = sandbox?.sandboxId ?? "";
});

afterAll(async () => {
  await agent.remove();
});

const socket = (): string => agent.layout.hostAgentSocket;

async function readConsole(offset: bigint): Promise<hostAgentProto.ReadConsoleResponse> {
  return agent.client.readConsole({ sandboxId: id, offset });
}

/** Has the guest print on its console. */
async function print(text: string): Promise<void> {
  await execute(socket(), id, `printf '%b' '${text}' > /dev/ttyS0`);
}

/** What has been printed from an offset on, once it has these words. */
async function untilPrinted(offset: bigint, words: string): Promise<hostAgentProto.ReadConsoleResponse> {
  const part = await pollUntil(
    async () => {
      const read = await readConsole(offset);
      return read.text.includes(words) ? read : null;
    },
    { timeoutMs: 20_000, intervalMs: 50 },
  );
  if (part === null) throw new Error(`the console does not have "${words}"`);
  return part;
}

it("the console goes on where it was read to, also after the host agent was killed", async () => {
  await print("first line\\n");
  const first = await untilPrinted(0n, "first line\n");
  expect(first.offset).toBe(0n);
  await print("printed before the kill\\n");
  // Reading takes it out of the engine's memory: what a host agent has not yet written down when it is killed is lost.
  await untilPrinted(first.nextOffset, "before the kill\n");
  await agent.restart();
  await print("\\033[1mbold\\033[0m\\n");
  const second = await untilPrinted(first.nextOffset, "bold\n");
  expect(second.offset).toBe(first.nextOffset);
  expect(second.text).toBe("printed before the kill\nbold\n");
  await expect(readConsole(second.nextOffset)).resolves.toMatchObject({
    text: "",
    offset: second.nextOffset,
    nextOffset: second.nextOffset,
  });
});

it("no line of a host agent's log has a secret, at the lowest level", async () => {
  const content = `content-${secret}`;
  const upload =
    `POST /files?path=/tmp/f&signature=signature-${secret} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n` +
    `X-Access-Token: ${testToken}\r\nContent-Length: ${content.length}\r\n\r\n${content}`;
  const { socket: tunnel } = await openTunnel(socket(), `${id}:${guestAgentPort}`);
  tunnel.write(upload);
  expect(await readAll(tunnel)).toMatch(/^HTTP/);
  await execute(socket(), id, `echo command-${secret}`);
  const envs = { PASSWORD: `env-${secret}` };
  const create = async (overrides: Parameters<TestHostAgent["request"]>[0]): Promise<unknown> =>
    agent.client.createSandbox(agent.request({ envs, ...overrides }));
  await expect(create({ memoryMib: 1 })).rejects.toThrow("memoryMib is 1");
  await expect(create({ memoryMib: 65_536 })).rejects.toThrow("memory");
  await expect(create({ accessToken: "" })).rejects.toThrow("accessToken is missing");
  await expect(create({ envs: { LARGE: secret.repeat(10_000) } })).rejects.toThrow("envs may have");
  const log = await agent.log();
  expect(log).toContain('"creation failed"');
  expect(log).not.toContain(secret);
  expect(log).not.toContain(testToken);
});

it("every line of a host agent's log about a sandbox names it", async () => {
  await openTunnel(socket(), `${id}:81`).then(({ socket: refused }) => readAll(refused));
  const lines = (await agent.log()).split("\n").filter((line) => line.includes(id));
  expect(lines.some((line) => line.includes("tunnel refused"))).toBe(true);
  for (const line of lines) expect(JSON.parse(line)).toMatchObject({ sandboxId: id });
});

it("the console can be read after the guest has died, until the sandbox is destroyed", async () => {
  const { nextOffset } = await readConsole(0n);
  await execute(socket(), id, "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger");
  await untilPrinted(nextOffset, "Kernel panic - not syncing");
  const dead = await pollUntil(async () => (await agent.client.getSandbox({ sandboxId: id })).sandbox?.death ?? null, {
    timeoutMs: 20_000,
    intervalMs: 50,
  });
  expect(dead?.code).toBe("guest_panicked");
  await agent.restart();
  await untilPrinted(nextOffset, "Kernel panic - not syncing");
  await agent.client.destroySandbox({ sandboxId: id });
  await expect(readConsole(0n)).rejects.toThrow("There is no such sandbox");
});
