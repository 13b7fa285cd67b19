import { expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

test("the guest agent of a sandbox answers through the server", async () => {
  const { server, sandbox } = api();
  const { status, body } = await server.call("POST", "/filesystem.Filesystem/Stat", {
    headers: { "Wrenn-Sandbox-Id": sandbox.id, "Content-Type": "application/json" },
    body: JSON.stringify({ path: "/etc/passwd" }),
  });
  expect(status).toBe(200);
  expect(body).toMatchObject({ entry: { path: "/etc/passwd" } });
});
