/** One sandbox: made, found, destroyed, and all that can be done in it. */
import { consoleSchema, dataPlaneHeaders, metricsSchema } from "@wrenn/contract";
import { z } from "zod";
import { Commands } from "./commands.ts";
import { Connection, type ConnectionOptions, type RequestOptions } from "./connection.ts";
import { errorFromResponse, failure } from "./errors.ts";
import { Files } from "./files.ts";
import { GuestConnection } from "./guest-connection.ts";
import {
  changeSandbox,
  createSandbox,
  destroySandbox,
  forkSandbox,
  getSandbox,
  listSandboxes,
  pauseSandbox,
  recoverSandbox,
  resumeSandbox,
  setSandboxTimeout,
} from "./lifecycle.ts";
import { sandboxPath } from "./paths.ts";
import { type SandboxConsole, type SandboxInfo, type SandboxMetrics, toConsole, toMetrics } from "./sandbox-info.ts";
import type {
  CreateSandboxOptions,
  ForkOptions,
  ListSandboxesOptions,
  RecoverOptions,
  SandboxChange,
} from "./sandbox-options.ts";
import {
  createSnapshot,
  type CreateSnapshotOptions,
  deleteSnapshot,
  getSnapshot,
  listSnapshots,
  type ListSnapshotsOptions,
  type SnapshotInfo,
} from "./snapshots.ts";
import { Terminals } from "./terminals.ts";

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
   * Creates a sandbox and resolves once its guest answers. One of a snapshot goes on where that was taken: memory, processes, files.
   * @throws InvalidRequestError for sizes out of range or other than a snapshot's, a bad name or an unknown template; CapacityError;
   * TimeoutError `guest_boot_timeout`, `response_timeout`; AuthenticationError; ConnectionError; ConflictError for an
   * `idempotencyKey` that was used for something else, or `snapshot_incompatible`
   */
  static async create(options: CreateSandboxOptions = {}): Promise<Sandbox> {
    const connection = new Connection(options);
    return new Sandbox(connection, await createSandbox(connection, options));
  }

  /**
   * A sandbox that exists, whatever its status.
   * @throws SandboxNotFoundError; InvalidRequestError `invalid_id` for what is no sandbox id; AuthenticationError; ConnectionError
   */
  static async connect(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<Sandbox> {
    const connection = new Connection(options);
    return new Sandbox(connection, await getSandbox(connection, id, options));
  }

  /** The team's sandboxes, newest first, asked for page by page as they are read. */
  static async *list(options: ListSandboxesOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
    yield* listSandboxes(new Connection(options), options);
  }

  /**
   * As `pause` of the sandbox, by its id.
   * @throws SandboxNotFoundError; else as `pause`
   */
  static async pause(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<SandboxInfo> {
    return pauseSandbox(new Connection(options), id, options);
  }

  /**
   * As `resume` of the sandbox, by its id.
   * @throws SandboxNotFoundError; else as `resume`
   */
  static async resume(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<Sandbox> {
    const connection = new Connection(options);
    return new Sandbox(connection, await resumeSandbox(connection, id, options));
  }

  /**
   * As `recover` of the sandbox, by its id.
   * @throws SandboxNotFoundError; else as `recover`
   */
  static async recover(id: string, options: ConnectionOptions & RecoverOptions): Promise<Sandbox> {
    const connection = new Connection(options);
    return new Sandbox(connection, await recoverSandbox(connection, id, options));
  }

  /**
   * Destroys a sandbox with all it holds, from any status. Resolves once nothing of it is left.
   * @throws SandboxNotFoundError when there is none, or it has been destroyed before; AuthenticationError; ConnectionError; TimeoutError
   */
  static async destroy(id: string, options: ConnectionOptions & RequestOptions = {}): Promise<void> {
    await destroySandbox(new Connection(options), id, { ...options, goneIsFine: false });
  }

  /** The team's snapshots, newest first, asked for page by page as they are read. */
  static async *listSnapshots(options: ListSnapshotsOptions = {}): AsyncGenerator<SnapshotInfo, void, undefined> {
    yield* listSnapshots(new Connection(options), options);
  }

  /**
   * One snapshot of the team.
   * @throws SnapshotNotFoundError; InvalidRequestError `invalid_name`; AuthenticationError; ConnectionError
   */
  static async getSnapshot(name: string, options: ConnectionOptions & RequestOptions = {}): Promise<SnapshotInfo> {
    return getSnapshot(new Connection(options), name, options);
  }

  /**
   * Deletes a snapshot. Sandboxes that were started from it keep all they have.
   * @throws SnapshotNotFoundError when there is none, or it has been deleted before; InvalidRequestError `invalid_name`;
   * AuthenticationError; ConnectionError; TimeoutError
   */
  static async deleteSnapshot(name: string, options: ConnectionOptions & RequestOptions = {}): Promise<void> {
    await deleteSnapshot(new Connection(options), name, options);
  }

  /** As the server last described it; see `refresh`. */
  get info(): SandboxInfo {
    return this.#info;
  }

  /** Asks the server again. */
  async refresh(options: RequestOptions = {}): Promise<SandboxInfo> {
    return this.#note(await getSandbox(this.#connection, this.id, options));
  }

  /**
   * Changes what can be changed of a sandbox that exists; what is left out stays as it is.
   * @throws InvalidRequestError when nothing is named or a value is out of range; ConflictError when it has stopped or died
   */
  async update(change: SandboxChange, options: RequestOptions = {}): Promise<SandboxInfo> {
    return this.#note(await changeSandbox(this.#connection, this.id, change, options));
  }

  /**
   * Sets how long it may be idle, counted from now on.
   * @param timeoutMs milliseconds, rounded up to whole seconds, at most 30 days; null for never
   * @throws InvalidRequestError when it is out of range; ConflictError when the sandbox has stopped or died
   */
  async setTimeout(timeoutMs: number | null, options: RequestOptions = {}): Promise<SandboxInfo> {
    return this.#note(await setSandboxTimeout(this.#connection, this.id, timeoutMs, options));
  }

  /**
   * Freezes memory, processes and disk as they are, and ends the virtual machine. Resolves once that state is safe on the host's disk,
   * which takes as long as writing the memory that has changed since it was last frozen; until then nothing is lost, and a pause
   * that fails leaves the sandbox running. Connections into it break: commands, terminals and watches that are followed end with
   * `sandbox_paused`; the commands themselves are kept. Pausing a paused one changes nothing. A client that stops waiting does not
   * stop the pause.
   * @throws ConflictError `sandbox_busy`, `sandbox_state_conflict` when it is doing something else or does not run; CapacityError
   * `host_out_of_disk`; GuestError `sandbox_died`; ConnectionError; TimeoutError
   */
  async pause(options: RequestOptions = {}): Promise<SandboxInfo> {
    return this.#note(await pauseSandbox(this.#connection, this.id, options));
  }

  /**
   * Lets a paused sandbox go on where it was paused; resolves once its guest answers. Its clock is right and its id the same; its
   * network connections of before are gone. Processes that ran go on, and can be followed again by `commands.connect`. Resuming one
   * that runs changes nothing. A client that stops waiting does not stop the resume.
   * @throws ConflictError `sandbox_busy`, `sandbox_state_conflict`, or `snapshot_incompatible` when the host has another engine
   * or processor by now; WrennError `snapshot_damaged`; CapacityError; GuestError `sandbox_died`; ConnectionError; TimeoutError
   */
  async resume(options: RequestOptions = {}): Promise<SandboxInfo> {
    return this.#note(await resumeSandbox(this.#connection, this.id, options));
  }

  /**
   * Makes copies that go on from this moment: memory, processes, files. This one goes on, or stays paused; its processes stand still for
   * as long as its changed memory takes to be written. Each copy has its own id, hostname, network and random numbers. All are made, or
   * none. Not tried again: when the answer is lost, the copies may have been made; give `metadata` to find them by.
   * @throws InvalidRequestError for a `count` out of range; ConflictError `sandbox_busy`, `sandbox_state_conflict`; CapacityError;
   * GuestError `sandbox_died`; ConnectionError; TimeoutError
   */
  async fork(options: ForkOptions = {}): Promise<Sandbox[]> {
    const copies = await forkSandbox(this.#connection, this.id, options);
    return copies.map((info) => new Sandbox(this.#connection, info));
  }

  /**
   * Takes a snapshot of memory, processes and disk as they are, as a template of the team: `Sandbox.create({ template: name })` goes on
   * from it, as often as you like. This sandbox goes on, or stays paused. The snapshot has whatever is in the sandbox, secrets too.
   * Not tried again: when the answer is lost, it may have been taken.
   * @throws InvalidRequestError `invalid_name`; ConflictError `snapshot_name_taken`, `sandbox_busy`, `sandbox_state_conflict`;
   * CapacityError `host_out_of_disk`; GuestError `sandbox_died`; ConnectionError; TimeoutError
   */
  async createSnapshot(options: CreateSnapshotOptions = {}): Promise<SnapshotInfo> {
    return createSnapshot(this.#connection, this.id, options);
  }

  /**
   * Starts a sandbox again whose virtual machine has died (`info.status` is `error`), from what `info.recoverable` names.
   * Not tried again.
   * @throws ConflictError `recovery_unavailable`, or `sandbox_state_conflict` when it is not dead; CapacityError; TimeoutError;
   * WrennError `snapshot_damaged`; ConnectionError
   */
  async recover(options: RecoverOptions): Promise<SandboxInfo> {
    return this.#note(await recoverSandbox(this.#connection, this.id, options));
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
    await destroySandbox(this.#connection, this.id, { ...options, goneIsFine: true });
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

  #note(info: SandboxInfo): SandboxInfo {
    this.#info = info;
    return info;
  }
}
