import { expect, test } from "vitest";
import { eventually, useTestServer } from "../testing/test-server.ts";

const server = useTestServer();

async function get(id: string): Promise<number> {
  return (await server().call("GET", "/", { headers: { "Wrenn-Sandbox-Id": id } })).status;
}

/** Something that starts a sandbox, and the connection that is opened into it unasked. */
async function opensOne<Value>(start: () => Promise<Value>): Promise<Value> {
  const before = server().agent.tunnelsOpened;
  const value = await start();
  await eventually(() => expect(server().agent.tunnelsOpened).toBe(before + 1));
  return value;
}

test("the first request into a sandbox that was started finds a connection open, and uses it", async () => {
  const { id } = await opensOne(async () => server().create());
  const opened = server().agent.tunnelsOpened;
  expect(await get(id)).toBe(200);
  expect(server().agent.tunnelsOpened).toBe(opened);

  await server().call("POST", `/v1/sandboxes/${id}/pause`);
  await opensOne(async () => server().call("POST", `/v1/sandboxes/${id}/resume`));
  expect(await get(id)).toBe(200);
  expect(server().agent.tunnelsOpened).toBe(opened + 1);
});

test("a connection that was opened ahead and broke before its first request is replaced", async () => {
  const { id } = await opensOne(async () => server().create());
  await server().agent.pause();
  await server().agent.resume();
  expect(await get(id)).toBe(200);
});
