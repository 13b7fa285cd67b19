/** What is asked of the server about sandboxes as a whole. */
import { deadlines, forkedSandboxesSchema, listSandboxesSchema, sandboxSchema } from "@wrenn/contract";
import { type ApiRequest, bounds, type Connection, type RequestOptions } from "./connection.ts";
import { sandboxPath } from "./paths.ts";
import { type SandboxInfo, toSandboxInfo, toSeconds } from "./sandbox-info.ts";
import { readPages } from "./pages.ts";
import type {
  CreateSandboxOptions,
  ForkOptions,
  ListSandboxesOptions,
  RecoverOptions,
  SandboxChange,
} from "./sandbox-options.ts";

/** Resolves once it runs. */
export async function createSandbox(connection: Connection, options: CreateSandboxOptions): Promise<SandboxInfo> {
  const { template, vcpus, memoryMib, diskMib, timeoutMs, onTimeout, metadata, envs } = options;
  const { idempotencyKey = newIdempotencyKey() } = options;
  return sendFor(connection, {
    method: "POST",
    path: "/v1/sandboxes",
    // JSON leaves out what is undefined, so that the server's defaults hold.
    body: {
      template,
      vcpus,
      memory_mib: memoryMib,
      disk_mib: diskMib,
      timeout_seconds: toSeconds(timeoutMs),
      on_timeout: onTimeout,
      metadata,
      envs,
    },
    headers: { "idempotency-key": idempotencyKey },
    repeatable: true,
    ...bounds(options, deadlines.createSandbox),
  });
}

export function listSandboxes(
  connection: Connection,
  options: ListSandboxesOptions,
): AsyncGenerator<SandboxInfo, void, undefined> {
  return readPages(options.limit, async (query) => {
    addFilters(query, options);
    const path = `/v1/sandboxes?${query.toString()}`;
    const page = await connection.send({ method: "GET", path, answer: listSandboxesSchema, ...bounds(options) });
    return { items: page.sandboxes.map((body) => toSandboxInfo(body)), nextCursor: page.next_cursor };
  });
}

export async function getSandbox(connection: Connection, id: string, options: RequestOptions): Promise<SandboxInfo> {
  return sendFor(connection, { method: "GET", path: sandboxPath(id), ...bounds(options) });
}

export async function pauseSandbox(connection: Connection, id: string, options: RequestOptions): Promise<SandboxInfo> {
  return sendFor(connection, {
    method: "POST",
    path: sandboxPath(id, "/pause"),
    // One that is paused stays paused.
    repeatable: true,
    ...bounds(options, deadlines.pauseSandbox),
  });
}

export async function resumeSandbox(connection: Connection, id: string, options: RequestOptions): Promise<SandboxInfo> {
  return sendFor(connection, {
    method: "POST",
    path: sandboxPath(id, "/resume"),
    // One that runs goes on running.
    repeatable: true,
    ...bounds(options, deadlines.resumeSandbox),
  });
}

export async function recoverSandbox(
  connection: Connection,
  id: string,
  options: RecoverOptions,
): Promise<SandboxInfo> {
  return sendFor(connection, {
    method: "POST",
    path: sandboxPath(id, "/recover"),
    body: { from: options.from },
    // A second death in between would be answered for by a request that was made for the first.
    repeatable: false,
    ...bounds(options, deadlines.recoverSandbox),
  });
}

export async function forkSandbox(connection: Connection, id: string, options: ForkOptions): Promise<SandboxInfo[]> {
  const { count, metadata, timeoutMs } = options;
  const { sandboxes } = await connection.send({
    method: "POST",
    path: sandboxPath(id, "/fork"),
    body: { count, metadata, timeout_seconds: toSeconds(timeoutMs) },
    answer: forkedSandboxesSchema,
    // Sent twice, it would make twice as many.
    repeatable: false,
    ...bounds(options, deadlines.forkSandbox),
  });
  return sandboxes.map((body) => toSandboxInfo(body));
}

export async function setSandboxTimeout(
  connection: Connection,
  id: string,
  timeoutMs: number | null,
  options: RequestOptions,
): Promise<SandboxInfo> {
  return sendFor(connection, {
    method: "POST",
    path: sandboxPath(id, "/timeout"),
    body: { timeout_seconds: toSeconds(timeoutMs) },
    repeatable: true,
    ...bounds(options),
  });
}

export async function changeSandbox(
  connection: Connection,
  id: string,
  { metadata, timeoutMs, onTimeout }: SandboxChange,
  options: RequestOptions,
): Promise<SandboxInfo> {
  return sendFor(connection, {
    method: "PATCH",
    path: sandboxPath(id),
    body: { metadata, timeout_seconds: toSeconds(timeoutMs), on_timeout: onTimeout },
    ...bounds(options),
  });
}

/** @param options `goneIsFine`: whether there need not be one any more */
export async function destroySandbox(
  connection: Connection,
  id: string,
  options: RequestOptions & { goneIsFine: boolean },
): Promise<void> {
  await connection.remove({
    path: sandboxPath(id),
    missingCode: "sandbox_not_found",
    goneIsFine: options.goneIsFine,
    ...bounds(options, deadlines.destroySandbox),
  });
}

/** A request that is answered with the sandbox as it then is. */
async function sendFor(
  connection: Connection,
  request: Omit<ApiRequest<typeof sandboxSchema>, "answer">,
): Promise<SandboxInfo> {
  return toSandboxInfo(await connection.send({ ...request, answer: sandboxSchema }));
}

/** Not crypto.randomUUID, which browsers have in secure contexts only. */
function newIdempotencyKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function addFilters(query: URLSearchParams, { status, template, metadata = {} }: ListSandboxesOptions): void {
  if (status !== undefined) query.set("status", [status].flat().join(","));
  if (template !== undefined) query.set("template", template);
  for (const [key, value] of Object.entries(metadata)) query.append("metadata", `${key}=${value}`);
}
