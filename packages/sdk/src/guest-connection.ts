/** A sandbox's guest agent, reached through the server's data plane. */
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import {
  dataPlaneHeaders,
  type ErrorCode,
  errorFromGuest,
  filesystemProto,
  guestAgentPort,
  type GuestErrorMeanings,
  isErrorCode,
  isTransitional,
  processProto,
  type Sandbox,
  sandboxSchema,
  WrennError,
} from "@wrenn/contract";
import { type CallSignal, delay, withLimits } from "./call-signal.ts";
import type { Connection, FetchFunction, RequestOptions } from "./connection.ts";
import { classified, failure, parseErrorBody } from "./errors.ts";
import { sandboxPath } from "./paths.ts";
import { noteRefusal, retrying } from "./retry.ts";

/** Calls that may be made twice: they change nothing, or nothing more the second time. */
const repeatableCalls: ReadonlySet<string> = new Set([
  "/process.Process/List",
  "/process.Process/Update",
  "/filesystem.Filesystem/Stat",
  "/filesystem.Filesystem/ListDir",
  "/filesystem.Filesystem/Remove",
  "/filesystem.Filesystem/WatchDir",
]);

/** Milliseconds that the server may take to say whether the sandbox runs. */
export const statusTimeoutMs = 10_000;
/** Milliseconds before it is asked again whether a pause is over. */
const settlingPollMs = 500;

/** What a connection ends with that broke, rather than with an answer which says why. */
const brokenConnections: ReadonlySet<ErrorCode> = new Set(["connection_lost", "server_unreachable"]);

export interface GuestCallOptions extends RequestOptions {
  /** What it is for, in errors. */
  what: string;
  /** Who it is done as; default the sandbox's default user. */
  user?: string | undefined;
  /** What the guest agent's error codes mean to this call. */
  errors?: GuestErrorMeanings;
  /** For calls that wait for something in the guest which may take any time. */
  unbounded?: boolean;
}

export class GuestConnection {
  readonly processes: Client<typeof processProto.Process>;
  readonly filesystem: Client<typeof filesystemProto.Filesystem>;
  readonly connection: Connection;
  readonly #sandboxId: string;

  constructor(connection: Connection, sandboxId: string) {
    this.connection = connection;
    this.#sandboxId = sandboxId;
    // Output is bytes: JSON would carry it as base64.
    const transport = createConnectTransport({ baseUrl: connection.url, useBinaryFormat: true, fetch: this.#rpcFetch });
    this.processes = createClient(processProto.Process, transport);
    this.filesystem = createClient(filesystemProto.Filesystem, transport);
  }

  /** One call with one answer. */
  async call<Answer>(
    options: GuestCallOptions,
    send: (options: { signal: AbortSignal; headers: Headers }) => Promise<Answer>,
  ): Promise<Answer> {
    const timeoutMs = options.unbounded === true ? undefined : this.connection.timeoutMs(options);
    return withLimits({ signal: options.signal, timeoutMs, what: options.what }, async ({ signal }) => {
      try {
        return await send({ signal, headers: userHeaders(options.user) });
      } catch (error) {
        throw await this.explainLoss(guestFailure(error, options.errors), signal);
      }
    });
  }

  /** A plain HTTP request to the guest agent. What it answers is the guest agent's, also when it is an error. */
  async fetch(path: string, init: RequestInit & { duplex?: "half" }, call: CallSignal): Promise<Response> {
    const repeatable = init.method === "GET";
    return retrying({ maxRetries: repeatable ? this.connection.maxRetries : 0, signal: call.signal }, () =>
      this.#send(`${this.connection.url}${path}`, { ...init, signal: call.signal }),
    );
  }

  /**
   * Asks the server whether the sandbox still runs. One that is `settling` is being paused, resumed or copied: it will run or be paused
   * in a time that the server bounds.
   * @throws WrennError why it does not: `sandbox_paused`, `guest_panicked`, `vm_died`, `sandbox_not_found`, …; or
   * `server_unreachable`.
   */
  async assertRunning(options: RequestOptions): Promise<"running" | "settling"> {
    const sandbox = await this.connection.send({
      method: "GET",
      path: sandboxPath(this.#sandboxId),
      answer: sandboxSchema,
      // Whoever asks does so again and again.
      repeatable: false,
      ...options,
    });
    const loss = lossOf(sandbox);
    if (loss !== null) throw loss;
    return isTransitional(sandbox.status) ? "settling" : "running";
  }

  /**
   * What to tell of a failure: where a connection broke, why the sandbox no longer runs, if it does not. One that is being paused or
   * resumed is waited for. Never throws.
   */
  async explainLoss(error: WrennError, signal: AbortSignal): Promise<WrennError> {
    if (!brokenConnections.has(error.code)) return error;
    try {
      while ((await this.assertRunning({ signal, requestTimeoutMs: statusTimeoutMs })) === "settling") {
        await delay(settlingPollMs, signal);
      }
      return error;
    } catch (reason) {
      return reason instanceof WrennError && !reason.retryable ? reason : error;
    }
  }

  readonly #rpcFetch: FetchFunction = async (input, init) => {
    const signal = init?.signal ?? new AbortController().signal;
    const repeatable = typeof input === "string" && repeatableCalls.has(input.slice(this.connection.url.length));
    return retrying({ maxRetries: repeatable ? this.connection.maxRetries : 0, signal }, () => this.#send(input, init));
  };

  readonly #send: FetchFunction = async (input, init) => {
    const headers = new Headers(init?.headers);
    headers.set(dataPlaneHeaders.sandboxId, this.#sandboxId);
    headers.set(dataPlaneHeaders.port, String(guestAgentPort));
    headers.set("x-api-key", this.connection.apiKey);
    const response = await this.connection.fetch(input, { ...init, headers });
    if (response.ok) return response;
    // The RPC library reads a failed answer as the guest agent's. Wrenn's own answers have to be recognised before it.
    const text = await response.text();
    const error = parseErrorBody(text);
    if (error !== null) throw noteRefusal(error, response);
    const { status, statusText } = response;
    return new Response(text, { status, statusText, headers: response.headers });
  };
}

/** Why the sandbox can be reached neither now nor soon, as far as this client knows the reason; null where it can be. */
function lossOf({ status, status_reason: reason }: Sandbox): WrennError | null {
  switch (status) {
    case "paused":
      return failure("sandbox_paused");
    case "pending":
    case "starting":
      return failure("sandbox_state_conflict", { message: `The sandbox is ${status}.` });
    case "stopping":
    case "stopped":
      return failureFor(reason, { code: "sandbox_not_found", message: "The sandbox has been destroyed." });
    case "error":
      return failureFor(reason, { code: "vm_died", message: "The sandbox failed." });
    case "running":
    case "missing":
    case "snapshotting":
    case "pausing":
    case "resuming":
      break;
  }
  return null;
}

function failureFor(reason: Sandbox["status_reason"], otherwise: { code: ErrorCode; message: string }): WrennError {
  const { code, message } = reason ?? otherwise;
  return isErrorCode(code) ? failure(code, { message }) : failure(otherwise.code, { message: `${message} (${code})` });
}

/** What failed in a call of the guest agent, in the class that it belongs to. */
export function guestFailure(thrown: unknown, meanings?: GuestErrorMeanings): WrennError {
  return classified(errorFromGuest(thrown, meanings));
}

/** The guest agent takes the user from Basic authentication, without a password. */
export function userHeaders(user: string | undefined): Headers {
  const headers = new Headers();
  if (user !== undefined) {
    // btoa takes one byte a character.
    const bytes = String.fromCharCode(...new TextEncoder().encode(`${user}:`));
    headers.set("authorization", `Basic ${btoa(bytes)}`);
  }
  return headers;
}
