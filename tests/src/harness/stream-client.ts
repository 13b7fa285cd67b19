/** A client of the API's WebSockets for tests: it gathers what it is told and can stop reading. */
import { once } from "node:events";
import { serverMessage, streamChannels } from "@wrenn/contract";
import type { ServerMessage } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import type { TestServer } from "@wrenn/control-plane/testing";
import { WebSocket } from "ws";

export type MessageOf<Type extends ServerMessage["type"]> = Extract<ServerMessage, { type: Type }>;

export interface OpenOptions {
  /** Null for a request without a key. */
  readonly key?: string | null;
  readonly headers?: Record<string, string>;
  /** Another server than the first. */
  readonly url?: string;
  /** Called with each piece of standard output, which is then not kept: for more of it than memory should hold. */
  readonly onStdout?: (bytes: Buffer) => void;
  /** False for a client that does not answer when it is asked whether it is still there. */
  readonly autoPong?: boolean;
}

export class StreamClient {
  readonly webSocket: WebSocket;
  readonly messages: ServerMessage[] = [];
  /** Fixed for good when the connection is closed. */
  closeCode: number | undefined;
  readonly #output: Record<"stdout" | "stderr", Buffer[]> = { stdout: [], stderr: [] };

  private constructor(webSocket: WebSocket, onStdout: OpenOptions["onStdout"]) {
    this.webSocket = webSocket;
    webSocket.on("message", (data: Buffer, isBinary: boolean) => {
      if (!isBinary) this.messages.push(serverMessage.parse(JSON.parse(data.toString("utf8"))));
      else if (data[0] === streamChannels.stderr) this.#output.stderr.push(data.subarray(1));
      else if (onStdout === undefined) this.#output.stdout.push(data.subarray(1));
      else onStdout(data.subarray(1));
    });
    webSocket.on("close", (code) => {
      this.closeCode = code;
    });
    webSocket.on("error", () => undefined);
  }

  /** Resolves once the connection is open. */
  static async open(server: TestServer, path: string, options: OpenOptions = {}): Promise<StreamClient> {
    const { key = server.key, headers = {}, url = server.url, autoPong = true } = options;
    const webSocket = new WebSocket(`${url.replace("http", "ws")}${path}`, {
      headers: { ...(key === null ? {} : { "X-API-Key": key }), ...headers },
      autoPong,
    });
    const client = new StreamClient(webSocket, options.onStdout);
    await once(webSocket, "open");
    return client;
  }

  get stdout(): Buffer {
    return Buffer.concat(this.#output.stdout);
  }

  get stderr(): Buffer {
    return Buffer.concat(this.#output.stderr);
  }

  say(message: unknown): void {
    this.webSocket.send(JSON.stringify(message));
  }

  /** Resolves once the message has left this process. */
  async input(bytes: Uint8Array | string): Promise<void> {
    const message = Buffer.concat([Buffer.of(streamChannels.stdin), Buffer.from(bytes)]);
    await new Promise<void>((resolve) => {
      this.webSocket.send(message, () => {
        resolve();
      });
    });
  }

  async message<Type extends ServerMessage["type"]>(type: Type): Promise<MessageOf<Type>> {
    return eventually(() => {
      const found = this.messages.find((message): message is MessageOf<Type> => message.type === type);
      if (found !== undefined) return found;
      throw new Error(`no message "${type}", but ${JSON.stringify(this.messages)}, close code ${this.closeCode}`);
    });
  }

  async started(): Promise<number> {
    return (await this.message("started")).pid;
  }

  /** Waits until the terminal or the command has printed this. */
  async printed(text: string | RegExp): Promise<string> {
    return eventually(() => {
      const printed = this.stdout.toString("utf8");
      if (typeof text === "string" ? printed.includes(text) : text.test(printed)) return printed;
      throw new Error(`not printed: ${text}; but ${JSON.stringify(printed)}`);
    });
  }

  /** The code and what came last before it. */
  async closed(): Promise<{ code: number; last: ServerMessage | undefined }> {
    if (this.webSocket.readyState !== WebSocket.CLOSED) await once(this.webSocket, "close");
    return { code: this.closeCode ?? 0, last: this.messages.at(-1) };
  }

  /** Close code and error code of a conversation that fails. */
  async failure(): Promise<[number, string | undefined]> {
    const { code, last } = await this.closed();
    return [code, last?.type === "error" ? last.error.code : undefined];
  }

  /** Goes without a word, as a process that is killed. */
  async vanish(): Promise<void> {
    this.webSocket.terminate();
    await this.closed();
  }
}
