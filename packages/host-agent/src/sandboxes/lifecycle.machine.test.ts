/** The life of sandboxes as a control plane sees it: through the RPC and the tunnels of a host agent that is a process of its own. */
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { ConnectError } from "@connectrpc/connect";
import { hostAgentProto, newId } from "@wrenn/contract";
import { isAlive, pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { engineKindUnderTest } from "../engines/testing/engine-under-test.ts";
import { exchange, execute, openTunnel, readAll, refusal } from "../testing/guest.ts";
import { engineOf, TestHostAgent } from "../testing/host-agent-process.ts";

const { SandboxState } = hostAgentProto;
const nothing = { engines: [], directories: [], cgroups: [], blockDevices: [] };

let agent: TestHostAgent;

beforeAll(async () => {
  agent = await TestHostAgent.prepare();
  await agent.start();
});

afterAll(async () => {
  await agent.remove();
});

const socket = (): string => agent.layout.hostAgentSocket;

async function create(): Promise<string> {
  const { sandbox } = await agent.client.createSandbox(agent.request());
  expect(sandbox?.state).toBe(SandboxState.RUNNING);
  return sandbox?.sandboxId ?? "";
}

async function awaitDeath(id: string): Promise<hostAgentProto.Death> {
  const death = await pollUntil(
    async () => {
      const { sandbox } = await agent.client.getSandbox({ sandboxId: id });
      return sandbox?.death ?? null;
    },
    { timeoutMs: 20_000, intervalMs: 50 },
  );
  if (death === null) throw new Error(`${id} does not die:\n${await agent.log()}`);
  return death;
}

/** The sandbox is known to be dead, and only that is left of it. */
async function expectFreed(id: string): Promise<void> {
  const freed = await pollUntil(
    async () => {
      const traces = await agent.traces();
      return traces.engines.length === 0 && traces.cgroups.length === 0 ? traces : null;
    },
    { timeoutMs: 10_000, intervalMs: 50 },
  );
  expect(freed?.directories).toEqual([id]);
  await expect(refusal(socket(), `${id}:49983`)).resolves.toEqual({ status: 409, code: "sandbox_died" });
  await agent.client.destroySandbox({ sandboxId: id });
  expect(await agent.traces()).toMatchObject(nothing);
}

/** `created`, or why not. Takes the rejection when it comes, however long it is then looked at. */
async function outcomeOf(creating: Promise<unknown>): Promise<string> {
  try {
    await creating;
    return "created";
  } catch (error) {
    return String(error);
  }
}

describe("a sandbox", () => {
  let id: string;

  it("answers once it is created, and creating it again returns it", async () => {
    const request = agent.request();
    id = request.sandboxId;
    const [first, second] = await Promise.all([
      agent.client.createSandbox(request),
      delay(50).then(() => agent.client.createSandbox(request)),
    ]);
    expect(first.sandbox).toEqual(second.sandbox);
    const { sandbox } = await agent.client.createSandbox(request);
    expect(sandbox).toMatchObject({
      sandboxId: id,
      state: SandboxState.RUNNING,
      vcpus: 1,
      memoryMib: 256,
      engine: engineKindUnderTest,
    });
    expect(sandbox?.steps.map(({ step }) => step)).toContain("restore");
    expect(Number(sandbox?.diskUsedBytes)).toBeGreaterThan(0);
    expect(Number(sandbox?.diskUsedBytes)).toBeLessThan(1_000_000_000);
    expect((await agent.traces()).engines).toHaveLength(1);
  });

  it("runs commands, with its own name and the kernel's console kept", async () => {
    const output = await execute(socket(), id, "hostname; cat /etc/machine-id; cat /etc/resolv.conf");
    expect(output).toContain(`sb-${id.slice(-12)}\n${id.replaceAll("-", "")}`);
    expect(output).toContain("nameserver 1.1.1.1");
  });

  it("is reached on any port of its network device and of its loopback, half-closed too", async () => {
    const echo = (address: string, port: number): string =>
      `import socket\ns=socket.create_server(("${address}",${port}))\nwhile True:\n c,_=s.accept()\n d=b""\n while True:\n  b=c.recv(65536)\n  if not b: break\n  d+=b\n c.sendall(d.upper()); c.close()`;
    const serve = (address: string, port: number): Promise<string> =>
      execute(socket(), id, `setsid python3 -c '${echo(address, port)}' >/dev/null 2>&1 </dev/null &`);
    await serve("0.0.0.0", 8_080);
    await serve("127.0.0.1", 9_090);
    for (const port of [8_080, 9_090]) {
      const answer = await pollUntil(
        async () => {
          try {
            return await exchange(socket(), `${id}:${port}`, "what was sent");
          } catch {
            return null;
          }
        },
        { timeoutMs: 20_000, intervalMs: 100 },
      );
      expect(answer).toBe("WHAT WAS SENT");
    }
    const large = "a".repeat(3_000_000);
    await expect(exchange(socket(), `${id}:8080`, large)).resolves.toBe(large.toUpperCase());
  });

  it("refuses a port on which nothing listens, and what is no sandbox", async () => {
    await expect(refusal(socket(), `${id}:81`)).resolves.toEqual({ status: 502, code: "port_closed" });
    await expect(refusal(socket(), `${newId("sandbox")}:80`)).resolves.toEqual({
      status: 404,
      code: "sandbox_not_found",
    });
    await expect(refusal(socket(), "sb-1:80")).resolves.toEqual({ status: 400, code: "invalid_id" });
    await expect(refusal(socket(), `${id}:0`)).resolves.toEqual({ status: 400, code: "invalid_request" });
    await expect(refusal(socket(), `${id}:65536`)).resolves.toEqual({ status: 400, code: "invalid_request" });
  });

  it("keeps running when the host agent is killed, and is adopted by the next", async () => {
    const engine = await engineOf(agent, id);
    await execute(socket(), id, "echo kept > /run/kept");
    await agent.signal("SIGKILL");
    await expect(isAlive(engine)).resolves.toBe(true);
    await agent.start();
    await expect(execute(socket(), id, "cat /run/kept")).resolves.toBe("kept\n");
    await expect(engineOf(agent, id)).resolves.toEqual(engine);
  });

  it("keeps running when the host agent is stopped", async () => {
    await agent.signal("SIGTERM");
    await agent.start();
    await expect(execute(socket(), id, "cat /run/kept")).resolves.toBe("kept\n");
    const { namespaces } = await agent.traces();
    expect(namespaces).toBeGreaterThanOrEqual(1);
  });

  it("is dead at once when its kernel panics, says so, and frees everything", async () => {
    const { socket: open } = await openTunnel(socket(), `${id}:49983`);
    const cut = readAll(open).catch(() => "");
    await execute(socket(), id, "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger");
    const death = await awaitDeath(id);
    expect(death.code).toBe("guest_panicked");
    expect(death.message).toContain("sysrq");
    expect(death.consoleTail).toContain("Kernel panic - not syncing");
    await cut;
    await expectFreed(id);
  });
});

describe("the end of a sandbox", () => {
  it("is told apart: it powered itself off", async () => {
    const id = await create();
    // The guest agent's init ends the machine on the kernel's own request.
    await execute(socket(), id, "echo 1 > /proc/sys/kernel/sysrq; echo o > /proc/sysrq-trigger; sleep 5");
    await expect(awaitDeath(id)).resolves.toMatchObject({ code: "guest_powered_off" });
    await expectFreed(id);
  });

  it("is told apart: its engine was killed, also while no host agent was there", async () => {
    const [first, second] = [await create(), await create()];
    process.kill((await engineOf(agent, first)).pid, "SIGKILL");
    await expect(awaitDeath(first)).resolves.toMatchObject({ code: "vm_died" });
    await agent.client.destroySandbox({ sandboxId: first });

    const engine = await engineOf(agent, second);
    await agent.signal("SIGKILL");
    process.kill(engine.pid, "SIGKILL");
    await agent.start();
    await expect(awaitDeath(second)).resolves.toMatchObject({ code: "vm_died" });
    await agent.restart();
    await expect(awaitDeath(second)).resolves.toMatchObject({ code: "vm_died" });
    await expectFreed(second);
  });
});

describe("a creation", () => {
  it("is aborted by a destroy, and leaves nothing", async () => {
    for (const afterMs of [10, 100]) {
      const request = agent.request();
      const creating = agent.client.createSandbox(request);
      const outcome = outcomeOf(creating);
      await delay(afterMs);
      await agent.client.destroySandbox({ sandboxId: request.sandboxId });
      await expect(outcome).resolves.toContain("was destroyed in the middle of this");
      expect(await agent.traces()).toMatchObject(nothing);
    }
  });

  it("goes on when its caller has gone", async () => {
    const request = agent.request();
    const caller = new AbortController();
    const creating = agent.client.createSandbox(request, { signal: caller.signal });
    await delay(50);
    caller.abort();
    await expect(creating).rejects.toBeInstanceOf(ConnectError);
    const { sandbox } = await agent.client.createSandbox(request);
    expect(sandbox?.state).toBe(SandboxState.RUNNING);
    await agent.client.destroySandbox({ sandboxId: request.sandboxId });
    expect(await agent.traces()).toMatchObject(nothing);
  });

  it("is finished before the host agent stops", async () => {
    const request = agent.request();
    const creating = agent.client.createSandbox(request);
    await delay(300);
    await agent.signal("SIGTERM");
    await expect(creating).resolves.toMatchObject({ sandbox: { state: SandboxState.RUNNING } });
    await agent.start();
    await expect(execute(socket(), request.sandboxId, "echo here")).resolves.toBe("here\n");
    await agent.client.destroySandbox({ sandboxId: request.sandboxId });
  });

  it("leaves nothing when the host agent is killed in the middle of it", async () => {
    const engineRuns = async (): Promise<true | null> => ((await agent.traces()).engines.length > 0 ? true : null);
    const running = (): Promise<unknown> => pollUntil(engineRuns, { timeoutMs: 20_000, intervalMs: 5 });
    const known = agent.request().memoryMib;
    // Of sizes that nobody has asked for yet, so that a guest has to be booted and frozen first, which takes over a second.
    const moments = [
      ...[5, 20, 45, 80].map((afterMs) => [`after ${afterMs} ms`, known, () => delay(afterMs)] as const),
      ["once an engine runs", known + 16, running],
      ["while a guest boots", known + 32, () => running().then(() => delay(300))],
    ] as const;
    for (const [when, memoryMib, moment] of moments) {
      const outcome = outcomeOf(agent.client.createSandbox(agent.request({ memoryMib })));
      await moment();
      await agent.restart();
      await expect(outcome).resolves.not.toBe("created");
      expect(await agent.traces(), `killed ${when}`).toMatchObject(nothing);
      await expect(agent.client.listSandboxes({})).resolves.toMatchObject({ sandboxes: [] });
    }
  });
});

describe("a host agent", () => {
  it("refuses to start beside another for the same directory, without disturbing it", async () => {
    await expect(agent.startRefused()).resolves.toContain("Another host agent is already running");
    await expect(agent.client.getHost({})).resolves.toMatchObject({
      engine: engineKindUnderTest,
      agentVersion: "0.1.0",
    });
  });

  it("stops in order when it is told to while it starts", async () => {
    await agent.signal("SIGTERM");
    const earlier = (await agent.log()).length;
    const logged = async (message: string): Promise<true | null> =>
      (await agent.log()).slice(earlier).includes(`"msg":"${message}"`) ? true : null;
    const starting = outcomeOf(agent.start());
    await pollUntil(() => logged("inventory"), { timeoutMs: 10_000 });
    await agent.signal("SIGTERM");
    await starting;
    await expect(logged("stopped")).resolves.toBe(true);
    await agent.start();
  });

  it("refuses a socket that another program serves, and replaces one that nobody does", async () => {
    await agent.signal("SIGTERM");
    expect(await agent.traces()).toEqual({ ...nothing, namespaces: 0 });
    const other = createServer();
    await once(other.listen(socket()), "listening");
    await expect(agent.startRefused()).resolves.toContain("Another process serves");
    other.close();
    await agent.start();
    await agent.restart();
    await expect(agent.client.getHost({})).resolves.toMatchObject({ engine: engineKindUnderTest });
  });
});
