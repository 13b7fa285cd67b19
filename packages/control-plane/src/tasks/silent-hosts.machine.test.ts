/** Hosts that stay away in the middle of what they were asked to do. */
import { expect, test } from "vitest";
import { eventually, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

interface TestSandbox {
  readonly id: string;
  readonly uuid: string;
}

async function leave(): Promise<void> {}

async function pause({ id }: TestSandbox): Promise<Answer> {
  return server().call("POST", `/v1/sandboxes/${id}/pause`);
}

async function die({ uuid }: TestSandbox): Promise<void> {
  server().agent.kill(uuid, "guest_panicked", "panic");
  await eventually(async () => expect(await server().statusOf(uuid)).toBe("error"));
}

interface UnderWay {
  readonly what: string;
  /** What happens to a running sandbox before. */
  readonly before: (sandbox: TestSandbox) => Promise<unknown>;
  readonly ask: (sandbox: TestSandbox) => Promise<Answer>;
  readonly change: string;
  readonly missing: string;
  readonly found: string;
}

const underWay: UnderWay[] = [
  {
    what: "pause",
    before: leave,
    ask: pause,
    change: "running→pausing",
    missing: "pausing→missing",
    found: "missing→paused",
  },
  {
    what: "resume",
    before: pause,
    ask: async ({ id }) => server().call("POST", `/v1/sandboxes/${id}/resume`),
    change: "paused→resuming",
    missing: "resuming→missing",
    found: "missing→running",
  },
  {
    what: "snapshot",
    before: leave,
    ask: async ({ id, uuid }) => server().post("/v1/snapshots", { sandbox_id: id, name: `left-${uuid}` }),
    change: "running→snapshotting",
    missing: "snapshotting→missing",
    found: "missing→running",
  },
  {
    what: "recovery",
    before: die,
    ask: async ({ id }) => server().post(`/v1/sandboxes/${id}/recover`, { from: "disk" }),
    change: "error→starting",
    missing: "starting→missing",
    found: "missing→running",
  },
];

/** A sandbox of which something was asked, and done, by a host that stays away before it has answered. */
async function leftUnderWay({ before, ask }: UnderWay): Promise<TestSandbox> {
  const sandbox = await server().create();
  await before(sandbox);
  server().agent.beforeAnswer = async () => server().agent.pause();
  expect(await ask(sandbox)).toMatchObject({ status: 503, body: { error: { code: "host_unavailable" } } });
  await eventually(async () => {
    expect((await server().call("GET", `/v1/sandboxes/${sandbox.id}`)).body).toMatchObject({
      status: "missing",
      status_reason: { code: "host_unavailable" },
    });
  });
  server().agent.behave();
  return sandbox;
}

test.each(underWay)(
  "a sandbox whose host stays away in the middle of a $what is missing, until the host is back and says what it is",
  async (operation) => {
    const { uuid } = await leftUnderWay(operation);
    await server().agent.resume();
    const { change, missing, found } = operation;
    await eventually(async () => expect((await server().eventsOf(uuid)).slice(-3)).toEqual([change, missing, found]));
  },
);

test.each(underWay)(
  "a sandbox whose host stays away in the middle of a $what can be destroyed, which is done when the host is back",
  async (operation) => {
    const { id, uuid } = await leftUnderWay(operation);
    const destroyed = await server().call("DELETE", `/v1/sandboxes/${id}`);
    expect(destroyed).toMatchObject({ status: 503, body: { error: { code: "host_unavailable" } } });
    expect(await server().statusOf(uuid)).toBe("stopping");
    await server().agent.resume();
    await eventually(async () => expect(await server().statusOf(uuid)).toBe("stopped"));
    expect(server().agent.sandboxes.has(uuid)).toBe(false);
  },
);
