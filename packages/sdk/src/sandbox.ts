/** One sandbox: made, found, destroyed, and all that can be done in it. */
import {
  consoleSchema,
  createdSandboxSchema,
  dataPlaneHeaders,
  deadlines,
  listSandboxesSchema,
  metricsSchema,
  pageLimits,
  type SandboxPage,
  sandboxSchema,
} from "@wrenn/contract";
import { z } from "zod";
import { Commands } from "./commands.ts";
import { Connection, type ConnectionOptions, type RequestOptions } from "./connection.ts";
import { errorFromResponse, failure, SandboxNotFoundError } from "./errors.ts";
import { Files } from "./files.ts";
import { GuestConnection } from "./guest-connection.ts";
import { sandboxPath } from "./paths.ts";
import {
  type SandboxConsole,
  type SandboxInfo,
  type SandboxMetrics,
  type SandboxStatus,
  type TimeoutAction,
  toConsole,
  toMetrics,
  toSandboxInfo,
  toSeconds,
} from "./sandbox-info.ts";
import { Terminals } from "./terminals.ts";

export interface CreateSandboxOptions extends ConnectionOptions, RequestOptions {
  /** Name of a template; default `minimal`. */
  template?: string | undefined;
  /** Whole processors, 1 to 32; default 1. */
  vcpus?: number | undefined;
  /** MiB, 128 to 65 536; default 512. */
  memoryMib?: number | undefined;
  /** MiB, 5 120 to 102 400; default 5 120. */
  diskMib?: number | undefined;
  /**
   * Milliseconds without any use after which `onTimeout` happens, rounded up to whole seconds, at most 30 days; default null, for
   * never.
   */
  timeoutMs?: number | null | undefined;
  /** What happens to a sandbox that was idle for its whole timeout; default `destroy`. */
  onTimeout?: TimeoutAction | undefined;
  /** Yours to find the sandbox by; Wrenn does not interpret it. Up to 64 entries, keys to 128 and values to 1 024 characters. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Environment of every process in the sandbox, at most 128 KiB. Never shown again. */
  envs?: Readonly<Record<string, string>> | undefined;
  /**
   * Of several creates with the same key within a day, one makes a sandbox and all get it. Default: a new one for each call, so
   * that it can be tried again when the connection breaks.
   */
  idempotencyKey?: string | undefined;
  /** Stops waiting. The server goes on creating: list the sandboxes to find it. */
  signal?: AbortSignal | undefined;
}

export interface ListSandboxesOptions extends ConnectionOptions, RequestOptions {
  /** One or several; default all but `stopped`. */
  status?: SandboxStatus | readonly SandboxStatus[] | undefined;
  /** Name of a template. */
  template?: string | undefined;
  /** Only those whose metadata has all of these. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** How many at most; default all. */
  limit?: number | undefined;
}

export interface SandboxChange {
  /** Replaces all of it. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds from now on, rounded up to whole seconds; null for never. */
  timeoutMs?: number | null | undefined;
  onTimeout?: TimeoutAction | undefined;
}

/** Milliseconds: the server's own deadlines, and time for its answer to arrive. */
const usual = {
  createTimeoutMs: deadlines.createSandbox + 10_000,
  destroyTimeoutMs: deadlines.destroySandbox + 10_000,
} as const;

export class Sandbox {
  readonly id: string;
  readonly commands: Commands;
  readonly files: Files;
  readonly pty: Terminals;
  readonly #connection: Connection;
  #info: SandboxInfo;

  private constructor(connection: Connection, info: SandboxInfo) {
    const guest = new GuestConnection(connection, info.id);
    this.id = info.id;
    this.commands = new Commands(guest);
    this.files = new Files(guest);
    this.pty = new Terminals(guest);
    this.#connection = connection;
    this.#info = info;
  }

  /**
   * Creates a sandbox and resolves once its guest answers.
   * @throws InvalidRequestError for sizes out of range, a bad name or an unknown template; CapacityError; TimeoutError
   * `guest_boot_timeout`, `response_timeout`; AuthenticationError; ConnectionError; ConflictError for an `idempotencyKey` that
   * was used for something else
   */
  static async create(options: CreateSandboxOptions = {}): Promise<Sandbox> {
    const { template, vcpus, memoryMib, diskMib, timeoutMs, onTimeout, metadata, envs } = options;
    const { signal, requestTimeoutMs, idempotencyKey = newIdempotencyKey() } = options;
    const connection = new Connection(options);
    const created = await connection.send({
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
      answer: createdSandboxSchema,
      signal,
      requestTimeoutMs,
      usualTimeoutMs: usual.createTimeoutMs,
    });
    return new Sandbox(connection, toSandboxInfo(created));
  }

  /**
   * A sandbox that exists, whatever its status.
   * @throws SandboxNotFoundError; InvalidRequestError `invalid_id` for what is no sandbox id; AuthenticationError; ConnectionError
   */
  static async connect(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<Sandbox> {
    const connection = new Connection(options);
    return new Sandbox(connection, await getInfo(connection, id, options));
  }

  /** The team's sandboxes, newest first, asked for page by page as they are read. */
  static async *list(options: ListSandboxesOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
    const { signal, requestTimeoutMs } = options;
    const connection = new Connection(options);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    let cursor: string | null = null;
    while (left > 0) {
      const query = listQuery(options, { limit: Math.min(left, pageLimits.max), cursor });
      const request = { method: "GET", answer: listSandboxesSchema, signal, requestTimeoutMs } as const;
      const page: SandboxPage = await connection.send({ ...request, path: `/v1/sandboxes?${query.toString()}` });
      for (const body of page.sandboxes.slice(0, left)) yield toSandboxInfo(body);
      left -= page.sandboxes.length;
      cursor = page.next_cursor;
      if (cursor === null) return;
    }
  }

  /**
   * Destroys a sandbox with all it holds, from any status. Resolves once nothing of it is left.
   * @throws SandboxNotFoundError when there is none, or it has been destroyed before; AuthenticationError; ConnectionError; TimeoutError
   */
  static async destroy(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<void> {
    await destroy(new Connection(options), id, { ...options, goneIsFine: false });
  }

  /** As the server last described it; see `refresh`. */
  get info(): SandboxInfo {
    return this.#info;
  }

  /** Asks the server again. */
  async refresh(options: RequestOptions = {}): Promise<SandboxInfo> {
    this.#info = await getInfo(this.#connection, this.id, options);
    return this.#info;
  }

  /**
   * Changes what can be changed of a sandbox that exists; what is left out stays as it is.
   * @throws InvalidRequestError when nothing is named or a value is out of range; ConflictError when it no longer runs
   */
  async update(change: SandboxChange, options: RequestOptions = {}): Promise<SandboxInfo> {
    const { metadata, timeoutMs, onTimeout } = change;
    const changed = await this.#connection.send({
      method: "PATCH",
      path: sandboxPath(this.id),
      body: { metadata, timeout_seconds: toSeconds(timeoutMs), on_timeout: onTimeout },
      answer: sandboxSchema,
      ...options,
    });
    this.#info = toSandboxInfo(changed);
    return this.#info;
  }

  /**
   * Counts as use: the time until `onTimeout` begins anew.
   * @throws ConflictError when it no longer runs
   */
  async ping(options: RequestOptions = {}): Promise<void> {
    const path = sandboxPath(this.id, "/ping");
    await this.#connection.send({ method: "POST", path, repeatable: true, answer: z.unknown(), ...options });
  }

  /** Destroys the sandbox with all it holds. Resolves once nothing of it is left. Doing it twice is fine. */
  async destroy(options: RequestOptions = {}): Promise<void> {
    await destroy(this.#connection, this.id, { ...options, goneIsFine: true });
  }

  /** `await using sandbox = await Sandbox.create()` destroys it at the end of the block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  /** What the sandbox uses right now. */
  async metrics(options: RequestOptions = {}): Promise<SandboxMetrics> {
    const path = sandboxPath(this.id, "/metrics");
    return toMetrics(await this.#connection.send({ method: "GET", path, answer: metricsSchema, ...options }));
  }

  /**
   * What the sandbox's kernel and its first process printed.
   * @param options `offset`: `nextOffset` of an earlier answer, for only what came after it; default 0
   */
  async console(options: RequestOptions & { offset?: number | undefined } = {}): Promise<SandboxConsole> {
    const { offset = 0, ...rest } = options;
    const path = sandboxPath(this.id, `/logs?offset=${offset}`);
    return toConsole(await this.#connection.send({ method: "GET", path, answer: consoleSchema, ...rest }));
  }

  /**
   * Sends an HTTP request to a port of the sandbox, as `fetch` does: no time limit, no second try, and the answer is the sandbox's
   * own, whatever its status.
   * @param path begins with a slash; may have a query
   * @throws GuestError `port_closed` when nothing listens there; ConflictError when the sandbox does not run
   */
  async fetch(port: number, path: string, init: RequestInit & { duplex?: "half" } = {}): Promise<Response> {
    if (!path.startsWith("/")) throw failure("invalid_request", { message: "The path must begin with a slash." });
    const headers = new Headers(init.headers);
    headers.set(dataPlaneHeaders.sandboxId, this.id);
    headers.set(dataPlaneHeaders.port, String(port));
    headers.set("x-api-key", this.#connection.apiKey);
    const response = await this.#connection.fetch(`${this.#connection.url}${path}`, { ...init, headers });
    // What the sandbox answers never has this header.
    if (response.headers.has("wrenn-error")) throw await errorFromResponse(response);
    return response;
  }
}

/** Not crypto.randomUUID, which browsers have in secure contexts only. */
function newIdempotencyKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function getInfo(connection: Connection, id: string, options: RequestOptions): Promise<SandboxInfo> {
  const { signal, requestTimeoutMs } = options;
  const request = { method: "GET", path: sandboxPath(id), answer: sandboxSchema, signal, requestTimeoutMs } as const;
  return toSandboxInfo(await connection.send(request));
}

async function destroy(
  connection: Connection,
  id: string,
  options: RequestOptions & { goneIsFine: boolean },
): Promise<void> {
  const { signal, requestTimeoutMs } = options;
  let { goneIsFine } = options;
  try {
    await connection.send({
      method: "DELETE",
      path: sandboxPath(id),
      answer: z.unknown(),
      signal,
      requestTimeoutMs,
      usualTimeoutMs: usual.destroyTimeoutMs,
      // An earlier try may have destroyed it before its connection broke.
      onRetry: () => (goneIsFine = true),
    });
  } catch (error) {
    if (!(goneIsFine && error instanceof SandboxNotFoundError)) throw error;
  }
}

function listQuery(options: ListSandboxesOptions, page: { limit: number; cursor: string | null }): URLSearchParams {
  const query = new URLSearchParams({ limit: String(page.limit) });
  if (page.cursor !== null) query.set("cursor", page.cursor);
  if (options.status !== undefined) query.set("status", [options.status].flat().join(","));
  if (options.template !== undefined) query.set("template", options.template);
  for (const [key, value] of Object.entries(options.metadata ?? {})) query.append("metadata", `${key}=${value}`);
  return query;
}
