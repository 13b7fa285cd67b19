/** Server-sent events as a test reads them. */
import { once } from "node:events";
import type http from "node:http";

export interface StreamedEvent {
  /** Empty for a comment. */
  readonly event: string;
  readonly data: unknown;
}

export class EventStream {
  readonly response: http.IncomingMessage;
  readonly #events: AsyncGenerator<StreamedEvent>;

  private constructor(response: http.IncomingMessage) {
    this.response = response;
    this.#events = eventsIn(response);
  }

  static async open(request: http.ClientRequest): Promise<EventStream> {
    request.on("error", () => undefined).end();
    const [response] = (await once(request, "response")) as [http.IncomingMessage];
    return new EventStream(response);
  }

  /** Null at the end of the stream. */
  async next(): Promise<StreamedEvent | null> {
    const { value, done } = await this.#events.next();
    return done === true ? null : value;
  }

  /** The next event for which this holds; those before it are passed over. */
  async until(matches: (event: StreamedEvent) => boolean): Promise<StreamedEvent> {
    for (;;) {
      const next = await this.next();
      if (next === null) throw new Error("the stream has ended without such an event");
      if (matches(next)) return next;
    }
  }

  /** What is left, up to the end. */
  async rest(): Promise<StreamedEvent[]> {
    const events: StreamedEvent[] = [];
    for (let next = await this.next(); next !== null; next = await this.next()) events.push(next);
    return events;
  }

  leave(): void {
    this.response.destroy();
  }
}

async function* eventsIn(response: http.IncomingMessage): AsyncGenerator<StreamedEvent> {
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response as AsyncIterable<string>) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
      yield parse(text.slice(0, end));
      text = text.slice(end + 2);
    }
  }
}

function parse(block: string): StreamedEvent {
  const field = (name: string): string | undefined =>
    block
      .split("\n")
      .find((line) => line.startsWith(`${name}: `))
      ?.slice(name.length + 2);
  const data = field("data");
  return { event: field("event") ?? "", data: data === undefined ? undefined : JSON.parse(data) };
}
