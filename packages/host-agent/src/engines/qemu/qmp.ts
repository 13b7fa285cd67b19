/** A client of QEMU's control socket (QMP, https://www.qemu.org/docs/master/interop/qmp-spec.html): one JSON value a line. */
import { existsSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";
import { deadlines, WrennError } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { z } from "zod";
import { type Deferred, deferred } from "../../deferred.ts";

const messageSchema = z.union([
  z.object({ QMP: z.object({ version: z.object({ qemu: z.object({ major: z.number(), minor: z.number() }) }) }) }),
  z.object({ event: z.string(), data: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ return: z.unknown(), id: z.number() }),
  z.object({ error: z.object({ class: z.string(), desc: z.string() }), id: z.number().optional() }),
]);
type Message = z.infer<typeof messageSchema>;

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Far above any reply the host agent asks for; a compromised engine must not fill the host agent's memory. */
const maxLineBytes = 4_194_304;

/** Splits a byte stream into the lines of text in it, whatever way the bytes arrive. */
export class LineSplitter {
  readonly #decoder = new StringDecoder("utf8");
  #partial = "";

  push(chunk: Buffer): string[] {
    const lines = (this.#partial + this.#decoder.write(chunk)).split("\n");
    this.#partial = lines.pop() ?? "";
    if (this.#partial.length > maxLineBytes)
      throw new WrennError("engine_failed", { message: "QEMU sent too long a line." });
    return lines.map((line) => line.trim()).filter((line) => line !== "");
  }
}

export class QmpClient {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Deferred<unknown>>();
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #greeted = deferred<void>();
  #nextId = 1;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;

  private constructor(socket: Socket, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    const lines = new LineSplitter();
    socket.on("data", (chunk) => {
      try {
        for (const line of lines.push(chunk)) this.#handle(messageSchema.parse(JSON.parse(line)));
      } catch (cause) {
        socket.destroy(new WrennError("engine_failed", { message: "QEMU sent something that is not QMP.", cause }));
      }
    });
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        const gone = new WrennError("engine_failed", { message: "QEMU closed its control socket." });
        this.#greeted.reject(gone);
        for (const pending of this.#pending.values()) pending.reject(gone);
        this.#pending.clear();
        resolve();
      });
    });
    // What went wrong is told by "close", and by the deadline of each command.
    socket.on("error", () => undefined);
    this.#greeted.promise.catch(() => undefined);
  }

  /**
   * Waits for the socket, the greeting and the end of negotiation.
   * @param mayStillCome asked between attempts; false ends the wait, because the process has gone
   * @throws WrennError `engine_failed` when QEMU does not greet within `deadlines.engineGreeting`
   */
  static async connect(
    socketPath: string,
    onEvent: (event: QmpEvent) => void,
    options: { mayStillCome?: () => boolean; signal?: AbortSignal } = {},
  ): Promise<QmpClient> {
    const socket = await pollUntil(async () => (options.mayStillCome?.() === false ? false : dial(socketPath)), {
      timeoutMs: deadlines.engineGreeting,
      intervalMs: 2,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    if (socket === null || socket === false) {
      throw new WrennError("engine_failed", { message: "QEMU did not open its control socket." });
    }
    const client = new QmpClient(socket, onEvent);
    try {
      await withDeadline(client.#greeted.promise, deadlines.engineGreeting, "greet");
      await client.execute("qmp_capabilities");
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /**
   * Runs one command and returns what QEMU returned.
   * @throws WrennError `engine_failed` when QEMU refuses, does not answer in time, or is gone
   */
  async execute(
    command: string,
    args: Record<string, unknown> = {},
    timeoutMs: number = deadlines.engineCommand,
  ): Promise<unknown> {
    if (this.#socket.destroyed) throw new WrennError("engine_failed", { message: "QEMU's control socket is closed." });
    const id = this.#nextId++;
    const reply = deferred<unknown>();
    this.#pending.set(id, reply);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await withDeadline(reply.promise, timeoutMs, `answer ${command}`);
    } finally {
      this.#pending.delete(id);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #handle(message: Message): void {
    if ("QMP" in message) {
      this.#greeted.resolve();
    } else if ("event" in message) {
      this.#onEvent({ name: message.event, data: message.data });
    } else if ("error" in message) {
      const error = new WrennError("engine_failed", { message: `QEMU refused: ${message.error.desc}` });
      if (message.id !== undefined) this.#pending.get(message.id)?.reject(error);
    } else {
      this.#pending.get(message.id)?.resolve(message.return);
    }
  }
}

/** A connected socket, or null while there is nobody to answer. */
async function dial(socketPath: string): Promise<Socket | null> {
  // Asked hundreds of times while ten engines start at once: a look costs a tenth of an attempt, and no round through a thread.
  if (!existsSync(socketPath)) return null;
  const socket = createConnection(socketPath);
  return new Promise((resolve) => {
    socket.once("connect", () => {
      resolve(socket);
    });
    socket.once("error", () => {
      socket.destroy();
      resolve(null);
    });
  });
}

async function withDeadline<Value>(promise: Promise<Value>, timeoutMs: number, what: string): Promise<Value> {
  const late = deferred<never>();
  const timer = setTimeout(() => {
    late.reject(new WrennError("engine_failed", { message: `QEMU did not ${what} within ${timeoutMs} ms.` }));
  }, timeoutMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
