import { createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { processProto } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import { expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

test("a command that runs keeps its sandbox; its end begins the timeout", async () => {
  const { server } = api();
  const sandbox = await server.create({ timeout_seconds: 1 });
  const intoSandbox: Interceptor = (next) => (request) => {
    request.header.set("Wrenn-Sandbox-Id", sandbox.id);
    request.header.set("X-API-Key", server.key);
    return next(request);
  };
  const processes = createClient(
    processProto.Process,
    createConnectTransport({ httpVersion: "1.1", baseUrl: server.url, interceptors: [intoSandbox] }),
  );
  const events: string[] = [];
  // Several timeouts long, and silent all the while.
  for await (const { event } of processes.start({ process: { cmd: "/bin/sleep", args: ["4"] } })) {
    events.push(event?.event.case ?? "none");
  }
  expect(events).toEqual(["start", "end"]);
  expect(await server.statusOf(sandbox.uuid)).toBe("running");
  await eventually(async () => expect(await server.statusOf(sandbox.uuid)).toBe("paused"));
  expect((await server.call("GET", `/v1/sandboxes/${sandbox.id}`)).body).toMatchObject({
    status_reason: { code: "idle_timeout" },
  });
});
