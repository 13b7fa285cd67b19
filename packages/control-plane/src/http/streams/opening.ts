/** What a client says first: who it is, where its request did not say so, and what it wants. All of it within one deadline. */
import { openingMessages, WrennError } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { z } from "zod";
import type { ApiKeys } from "../../services/api-keys.ts";
import type { StreamSocket } from "./stream-socket.ts";

export class Opening {
  readonly #socket: StreamSocket;
  readonly #late: Promise<never>;
  readonly #timer: NodeJS.Timeout;

  constructor(socket: StreamSocket, withinMs: number) {
    this.#socket = socket;
    let fail: (error: WrennError) => void = () => undefined;
    this.#late = new Promise((_resolve, reject) => {
      fail = reject;
    });
    // Nobody may wait for it at the moment when it passes.
    this.#late.catch(() => undefined);
    this.#timer = setTimeout(() => {
      fail(new WrennError("request_timeout", { message: "The first message did not arrive in time." }));
    }, withinMs);
  }

  /** @throws WrennError `unauthorized`, `request_timeout`, or the client's leaving */
  async authenticate(apiKeys: ApiKeys): Promise<TeamId> {
    const message = openingMessages.authenticate.safeParse(parsedJson(await this.#text()));
    if (!message.success) {
      throw new WrennError("unauthorized", {
        message: "The request has no API key, and the first message brings none.",
        suggestion:
          'Send a key in the X-API-Key header, or {"type": "authenticate", "api_key": "…"} as the first message.',
      });
    }
    return (await apiKeys.verify(message.data.api_key)).teamId;
  }

  /** @throws WrennError `invalid_message`, `request_timeout`, or the client's leaving */
  async read<Message>(schema: z.ZodType<Message>): Promise<Message> {
    return parseMessage(await this.#text(), schema);
  }

  /** Everything has been said. */
  end(): void {
    clearTimeout(this.#timer);
  }

  async #text(): Promise<string> {
    const message = await Promise.race([this.#socket.next(), this.#late]);
    this.#socket.over.throwIfAborted();
    if (message !== null) this.#socket.release(message);
    if (message?.isBinary === false) return message.bytes.toString("utf8");
    throw new WrennError("invalid_message", { message: "The first message must be text." });
  }
}

/** @throws WrennError `invalid_message`, which names the fields that are wrong, never their values */
export function parseMessage<Message>(text: string, schema: z.ZodType<Message>): Message {
  const parsed = schema.safeParse(parsedJson(text));
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map(({ path, message }) => ({
    field: path.join(".") || "message",
    problem: message,
  }));
  const problems = fields.map(({ field, problem }) => `${field}: ${problem}`).join("; ");
  throw new WrennError("invalid_message", { message: `The message is not valid: ${problems}.`, details: { fields } });
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
