import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { ConnectionOptions } from "@wrenn/sdk";
import { afterEach, beforeEach, expect, it } from "vitest";
import { destroyAbandonedRuns, runMetadata, thisProcess } from "./abandoned-runs.ts";

const ids = [1, 2].map((n) => `sb-01890000-0000-7000-8000-00000000000${n}`);
let server: Server;
let api: ConnectionOptions;
let destroyed: string[];
/** How the stand-in for the server answers a destroy. */
let answerDestroy: (id: string, response: ServerResponse) => void;

beforeEach(async () => {
  const { process: self, pidNamespace } = await thisProcess();
  // Nobody has had this pid since then.
  const owner = { process: { ...self, startTime: "0" }, pidNamespace };
  const sandboxes = ids.map((id) => ({
    id,
    team_id: "team-01890000-0000-7000-8000-000000000002",
    template: "minimal",
    status: "running",
    status_reason: null,
    vcpus: 1,
    memory_mib: 512,
    disk_mib: 5_120,
    metadata: runMetadata("run", owner),
    timeout_seconds: null,
    on_timeout: "destroy",
    expires_at: null,
    host_id: null,
    engine: "qemu-tcg",
    engine_reason: null,
    disk_format: "qcow2",
    memory_backend: "file",
    recoverable: [],
    created_at: "2026-01-01T00:00:00.000Z",
    started_at: "2026-01-01T00:00:01.000Z",
    paused_at: null,
  }));
  destroyed = [];
  server = createServer((request, response) => {
    const id = ids.find((known) => request.url?.endsWith(known));
    if (id === undefined) response.end(JSON.stringify({ sandboxes, next_cursor: null }));
    else answerDestroy(id, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  api = { apiUrl: `http://127.0.0.1:${port}`, apiKey: `wrn_${"0".repeat(40)}` };
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

it("a sandbox that cannot be destroyed does not keep the others", async () => {
  answerDestroy = (id, response) => {
    response.statusCode = id === ids[0] ? 503 : 200;
    if (id !== ids[0]) destroyed.push(id);
    response.end(JSON.stringify({ error: { code: "host_unavailable", message: "The agent is away." } }));
  };
  const said: string[] = [];
  await destroyAbandonedRuns(api, (message) => said.push(message), new AbortController().signal);
  expect(destroyed).toEqual([ids[1]]);
  expect(said).toEqual([expect.stringContaining("The agent is away."), expect.stringContaining(`destroyed ${ids[1]}`)]);
});

it("a destroy that takes long does not keep the server from stopping", async () => {
  const stop = new AbortController();
  answerDestroy = () => {
    stop.abort();
  };
  await expect(destroyAbandonedRuns(api, () => undefined, stop.signal)).rejects.toMatchObject({
    name: "AbortError",
  });
});
