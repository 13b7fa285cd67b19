import { eventually } from "@wrenn/control-plane/testing";
import { beforeEach, expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();
let sandbox: { readonly id: string; readonly uuid: string };

beforeEach(async () => {
  sandbox = await api().server.create();
});

/** Resolves when the sandbox runs a command that does not end by itself. */
async function runsCommand(): Promise<void> {
  await eventually(async () => {
    const { body } = await api().server.call("GET", `/v1/sandboxes/${sandbox.id}/processes`);
    expect((body as unknown as { processes: { cmd: string }[] }).processes.map(({ cmd }) => cmd)).toContain("sleep");
  });
}

test("a command whose sandbox is paused under it is told so", async () => {
  const { server } = api();
  const running = server.post(`/v1/sandboxes/${sandbox.id}/exec`, { cmd: "sleep", args: ["60"] });
  await runsCommand();
  expect((await server.call("POST", `/v1/sandboxes/${sandbox.id}/pause`)).status).toBe(200);
  const { status, body } = await running;
  expect([status, body]).toMatchObject([409, { error: { code: "sandbox_paused" } }]);
});
