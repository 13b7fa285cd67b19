/** One server and one key: sends requests of the public API, checks the answers' shape, turns failures into WrennErrors. */
import { type ErrorCode, WrennError } from "@wrenn/contract";
import { z } from "zod";
import { type CallSignal, withLimits } from "./call-signal.ts";
import { errorFromResponse, failure } from "./errors.ts";
import { noteRefusal, retrying } from "./retry.ts";

export type FetchFunction = typeof fetch;

/** Where the server is, and how to talk to it. */
export interface ConnectionOptions {
  /** Address of the server; default the variable `WRENN_API_URL`, else `http://127.0.0.1:7070`. */
  apiUrl?: string | undefined;
  /** A key of the team whose sandboxes are meant; default the variable `WRENN_API_KEY`. */
  apiKey?: string | undefined;
  /** What sends requests; default the global `fetch`. */
  fetch?: FetchFunction | undefined;
  /**
   * Milliseconds that a request may wait for its answer, tries included, and a transfer for its next bytes; default 60 000.
   * What the server itself may take longer for has 10 s more than the server: creating a sandbox 160 s, destroying one 70 s, pausing
   * one and taking a snapshot 190 s, resuming 130 s, forking 250 s, recovering 160 s. `Infinity` for as long as it takes.
   */
  requestTimeoutMs?: number | undefined;
  /** How often a request that may be sent twice is tried again after it failed for a passing reason; default 2. */
  maxRetries?: number | undefined;
}

/** What any call takes. */
export interface RequestOptions {
  /** Ends the call, which then fails with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds, for this call only; see `ConnectionOptions`. */
  requestTimeoutMs?: number | undefined;
}

export interface ApiRequest<Schema extends z.ZodType> extends RequestOptions {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Path and query, beginning with a slash. */
  path: string;
  body?: unknown;
  headers?: Record<string, string> | undefined;
  /** What a successful answer looks like. */
  answer: Schema;
  /** Statuses beside 2xx whose body is an answer of that form. */
  alsoFine?: readonly number[];
  /** Whether sending it twice does no more than sending it once; default true, except for POST. */
  repeatable?: boolean;
  /** Called before each try after the first, which may have done what was asked. */
  onRetry?: () => void;
  /** Milliseconds that this request takes at most, where that is more than the default. */
  usualTimeoutMs?: number;
}

export interface RemovalRequest extends RequestOptions {
  path: string;
  /** What the server answers when there is nothing of that name. */
  missingCode: ErrorCode;
  /** Whether that is as good as having removed it. */
  goneIsFine: boolean;
  usualTimeoutMs?: number;
}

const defaults = { apiUrl: "http://127.0.0.1:7070", requestTimeoutMs: 60_000, maxRetries: 2 } as const;

export class Connection {
  /** Without a slash at its end. */
  readonly url: string;
  readonly maxRetries: number;
  readonly #apiKey: string | undefined;
  readonly #fetch: FetchFunction;
  readonly #requestTimeoutMs: number | undefined;

  constructor(options: ConnectionOptions = {}) {
    this.url = serverAddress(options.apiUrl ?? environmentVariable("WRENN_API_URL") ?? defaults.apiUrl);
    this.#apiKey = options.apiKey ?? environmentVariable("WRENN_API_KEY");
    // Called without `this`, which browsers refuse; looked up at each call, so that a replaced global counts.
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.#requestTimeoutMs = options.requestTimeoutMs;
    this.maxRetries = options.maxRetries ?? defaults.maxRetries;
  }

  /** @throws AuthenticationError `unauthorized` when there is none */
  get apiKey(): string {
    if (this.#apiKey !== undefined && this.#apiKey !== "") return this.#apiKey;
    throw failure("unauthorized", {
      message: "There is no API key.",
      suggestion: "Set WRENN_API_KEY, or give the option apiKey.",
    });
  }

  /** What a call may take: as it says itself, else as the connection does, else what is usual. */
  timeoutMs(options: RequestOptions, usualMs: number = defaults.requestTimeoutMs): number {
    return options.requestTimeoutMs ?? this.#requestTimeoutMs ?? usualMs;
  }

  async send<Schema extends z.ZodType>(request: ApiRequest<Schema>): Promise<z.output<Schema>> {
    const { method, path, signal, usualTimeoutMs, onRetry } = request;
    const timeoutMs = this.timeoutMs(request, usualTimeoutMs);
    const repeatable = request.repeatable ?? method !== "POST";
    const headers = { accept: "application/json", "x-api-key": this.apiKey, ...request.headers };
    return withLimits({ signal, timeoutMs, what: `${method} ${path}` }, (call) =>
      retrying({ maxRetries: repeatable ? this.maxRetries : 0, signal: call.signal, onRetry }, () =>
        this.exchange({ ...request, headers }, call),
      ),
    );
  }

  /** Sends a DELETE, again if need be: what an earlier try had removed before its connection broke is removed. */
  async remove(removal: RemovalRequest): Promise<void> {
    const { missingCode, goneIsFine, ...request } = removal;
    let isFine = goneIsFine;
    try {
      await this.send({ ...request, method: "DELETE", answer: z.unknown(), onRetry: () => (isFine = true) });
    } catch (error) {
      if (!(isFine && error instanceof WrennError && error.code === missingCode)) throw error;
    }
  }

  /** One request and its answer, with no key of its own and no second try. */
  async exchange<Schema extends z.ZodType>(request: ApiRequest<Schema>, call: CallSignal): Promise<z.output<Schema>> {
    const { method, path, body } = request;
    const headers = new Headers(request.headers);
    if (body !== undefined) headers.set("content-type", "application/json");
    const response = await this.fetch(`${this.url}${path}`, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: call.signal,
    });
    // The body is read whatever is expected: an unread one keeps its connection from being used again.
    return this.#reach(async () => {
      const fine = response.ok || request.alsoFine?.includes(response.status) === true;
      if (!fine) throw noteRefusal(await errorFromResponse(response), response);
      return parseAnswer(request, await response.text());
    });
  }

  /**
   * `fetch`, with a server that cannot be reached told apart from everything else.
   * @throws ConnectionError `server_unreachable`
   */
  readonly fetch: FetchFunction = async (input, init) => {
    const send = this.#fetch;
    return this.#reach(() => send(input, init));
  };

  async #reach<Value>(work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (cause) {
      // What fetch and the streams of its bodies throw when a connection cannot be made or breaks.
      if (!(cause instanceof TypeError)) throw cause;
      throw failure("server_unreachable", { message: `The server at ${this.url} does not answer.`, cause });
    }
  }
}

/** Milliseconds that an answer may be on its way, beyond the server's own deadline. */
const onTheWayMs = 10_000;

/**
 * How long a request is waited for, out of the options of a function that may have others.
 * @param deadlineMs the server's own, where that is more than a request usually takes
 */
export function bounds(
  { signal, requestTimeoutMs }: RequestOptions,
  deadlineMs?: number,
): Pick<ApiRequest<z.ZodType>, "signal" | "requestTimeoutMs" | "usualTimeoutMs"> {
  const own = { signal, requestTimeoutMs };
  return deadlineMs === undefined ? own : { ...own, usualTimeoutMs: deadlineMs + onTheWayMs };
}

/** @throws InvalidRequestError */
function serverAddress(text: string): string {
  if (/^https?:/i.test(text) && URL.canParse(text)) return text.replace(/\/+$/, "");
  throw failure("invalid_request", {
    message: `"${text}" is not the address of a server.`,
    suggestion: `Give one such as ${defaults.apiUrl} in WRENN_API_URL or the option apiUrl.`,
  });
}

function parseAnswer<Schema extends z.ZodType>(request: ApiRequest<Schema>, text: string): z.output<Schema> {
  const parsed = request.answer.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw failure("internal", {
    message: `${request.method} ${request.path} was answered with something that is not of the expected form.`,
    suggestion: "Use a client and a server of the same version.",
    cause: parsed.error,
  });
}

function parseJson(text: string): unknown {
  try {
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return undefined;
  }
}

/** Undefined where there is no environment, as in a browser. */
function environmentVariable(name: string): string | undefined {
  const value = typeof process === "undefined" ? undefined : process.env[name];
  return value === "" ? undefined : value;
}
