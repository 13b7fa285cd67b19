/** What the control plane writes into its log while all of its routes are used: ids to find things by, and no secret. */
import { RawClient } from "@wrenn/control-plane/testing";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

const secret = "recognisable-secret";

interface Call {
  readonly method: string;
  readonly path: string;
  readonly json?: unknown;
  readonly bytes?: string;
}

/** Each with secrets wherever it takes something from its caller. Some succeed, some are refused: both are logged. */
const calls: readonly Call[] = [
  { method: "POST", path: "", json: { envs: { PASSWORD: `env-${secret}` }, metadata: { note: `metadata-${secret}` } } },
  { method: "POST", path: "", json: { envs: { PASSWORD: `env-${secret}` }, vcpus: `vcpus-${secret}` } },
  { method: "POST", path: "", json: { envs: { PASSWORD: `env-\0${secret}` } } },
  { method: "POST", path: "", bytes: `{"envs":"${secret}` },
  { method: "GET", path: `?metadata=key=value-${secret}` },
  { method: "GET", path: `?metadata=${secret}` },
  { method: "GET", path: "/:id" },
  { method: "PATCH", path: "/:id", json: { metadata: { note: `metadata-${secret}` } } },
  { method: "POST", path: "/:id/ping" },
  { method: "GET", path: "/:id/logs" },
  { method: "GET", path: "/:id/metrics" },
  { method: "POST", path: "/:id/exec", json: shell(`echo command-${secret}; exit 3`) },
  { method: "POST", path: "/:id/exec", json: { ...shell("cat"), stdin: `stdin-${secret}`, cwd: `/cwd-${secret}` } },
  { method: "POST", path: "/:id/exec", json: { cmd: `program-${secret}`, envs: { PASSWORD: `env-${secret}` } } },
  { method: "POST", path: "/:id/processes", json: { ...shell(`echo ${secret}`), tag: `tag-${secret}` } },
  { method: "POST", path: "/:id/processes", json: { cmd: `program-${secret}` } },
  { method: "GET", path: "/:id/processes" },
  { method: "POST", path: "/:id/processes/999999/signal", json: { signal: "SIGKILL" } },
  {
    method: "PUT",
    path: `/:id/files?path=/tmp/file-${secret}&signature=signature-${secret}`,
    bytes: `content-${secret}`,
  },
  { method: "PUT", path: `/:id/files?path=/tmp/file-${secret}`, bytes: `content-${secret}` },
  { method: "GET", path: `/:id/files?path=/tmp/file-${secret}` },
  { method: "GET", path: `/:id/files?path=/nowhere-${secret}` },
  { method: "GET", path: `/:id/files/list?path=/nowhere-${secret}` },
  { method: "GET", path: `/:id/files/stat?path=/nowhere-${secret}` },
  { method: "GET", path: `/:id/files/watch?path=/nowhere-${secret}` },
  { method: "POST", path: "/:id/files/mkdir", json: { path: `/proc/directory-${secret}` } },
  { method: "POST", path: "/:id/files/move", json: { source: `/from-${secret}`, destination: `/to-${secret}` } },
  { method: "DELETE", path: `/:id/files?path=/nowhere-${secret}` },
  { method: "GET", path: `/:id/nowhere-${secret}?token=${secret}` },
  { method: "GET", path: `/%zz${secret}` },
  { method: "DELETE", path: `/sb-${secret}` },
];

function shell(script: string): { cmd: string; args: string[]; envs: Record<string, string> } {
  return { cmd: "/bin/sh", args: ["-c", script], envs: { PASSWORD: `env-${secret}` } };
}

async function callAll(): Promise<void> {
  const { server, sandbox } = api();
  for (const { method, path, json, bytes } of calls) {
    const body = json === undefined ? bytes : JSON.stringify(json);
    const type = json === undefined && method === "PUT" ? "application/octet-stream" : "application/json";
    const response = await fetch(`${server.url}/v1/sandboxes${path.replace(":id", sandbox.id)}`, {
      method,
      headers: { "X-API-Key": server.key, ...(body === undefined ? {} : { "Content-Type": type }) },
      ...(body === undefined ? {} : { body }),
      signal: AbortSignal.timeout(20_000),
    });
    await response.arrayBuffer();
    expect({ method, path, fails: response.status >= 500 }).toEqual({ method, path, fails: false });
  }
}

/** The same into the sandbox itself, by key and by token, and what is refused on the way. */
async function callIntoSandbox(): Promise<void> {
  const { server, sandbox } = api();
  const client = new RawClient(server, sandbox.id);
  const file = `/files?path=/tmp/f-${secret}&signature=signature-${secret}&signature_expiration=1`;
  await (await client.send(file, { method: "POST", body: `content-${secret}` })).text();
  await (await client.send(file, { headers: { "X-API-Key": "", "X-Access-Token": sandbox.token } })).text();
  await (await client.send("/", { headers: { "X-API-Key": `key-${secret}` } })).text();
  await (await client.send("/", { headers: { "X-API-Key": "", "X-Access-Token": `token-${secret}` } })).text();
  await client.refusal(`/${secret}`, { port: 81, headers: { Cookie: secret, Authorization: `Bearer ${server.key}` } });
  await client.refusal(`/%zz${secret}`);
}

/** WebSockets, ended however they end. */
async function callStreams(): Promise<void> {
  const { server, sandbox } = api();
  const address = server.url.replace("http", "ws");
  for (const path of ["exec/stream", "pty", "processes/1/stream"]) {
    const socket = new WebSocket(`${address}/v1/sandboxes/${sandbox.id}/${path}?token=${secret}`);
    socket.on("open", () => {
      socket.send(JSON.stringify({ type: "authenticate", api_key: `key-${secret}` }));
      socket.send(JSON.stringify({ type: "start", ...shell(`echo ${secret}`) }));
    });
    socket.on("message", () => undefined);
    socket.on("error", () => undefined);
    await new Promise((resolve) => {
      socket.once("close", resolve);
    });
  }
}

interface Line {
  readonly msg?: string;
  readonly reqId?: string;
  readonly sandboxId?: string;
  readonly status?: number | null;
}

test("no line of the log has a secret, and each names the request and the sandbox that it is about", async () => {
  const { server, sandbox } = api();
  await callAll();
  await callIntoSandbox();
  await callStreams();
  await fetch(`${server.url}/metrics?token=${secret}`, { headers: { Authorization: `Bearer ${server.key}` } });
  await server.agent.pause();
  await server.post("/v1/sandboxes", { envs: { PASSWORD: `env-${secret}` } });
  await new RawClient(server, sandbox.id).send(`/files?path=${secret}`);
  await server.agent.resume();
  server.agent.kill(sandbox.uuid, "guest_panicked", "It panicked.");
  await server.call("DELETE", `/v1/sandboxes/${sandbox.id}`);

  const { logged } = server;
  const text = logged.join("");
  for (const word of [secret, server.key, server.key.slice("wrn_".length), sandbox.token])
    expect(text).not.toContain(word);

  const lines = logged.map((line) => JSON.parse(line) as Line);
  const messages = new Set(lines.map(({ msg }) => msg));
  for (const msg of ["request", "request refused", "request failed", "data plane: refused", "data plane: failed"]) {
    expect(messages).toContain(msg);
  }
  for (const line of lines.filter(({ msg = "" }) => /^(request|data plane|connection refused)/.test(msg))) {
    expect(line).toMatchObject({ reqId: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  }
  expect(lines.find(({ msg, status }) => msg === "request" && status === 201)).toHaveProperty("sandboxId");
  const ofSandbox = lines.filter((line) => JSON.stringify(line).includes(sandbox.uuid));
  expect(ofSandbox.length).toBeGreaterThan(10);
  for (const line of ofSandbox) expect(line).toMatchObject({ sandboxId: sandbox.uuid });
  for (const line of lines.filter(({ msg = "" }) => msg.startsWith("data plane"))) {
    expect(line).toMatchObject({ sandboxId: sandbox.uuid });
  }
});
