/** What a process did, gathered from its event stream. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { processProto } from "@wrenn/contract";

type EventResponse = processProto.StartResponse | processProto.ConnectResponse;

export interface Observed {
  pid: number;
  stdout: string;
  stderr: string;
  pty: string;
  keepalives: number;
  end: processProto.ProcessEvent_EndEvent | undefined;
}

/** Takes events one by one; `read` continues where it stopped. */
export class ProcessEvents {
  readonly seen: Observed = { pid: 0, stdout: "", stderr: "", pty: "", keepalives: 0, end: undefined };
  readonly #events: AsyncIterator<EventResponse>;

  constructor(events: AsyncIterable<EventResponse>) {
    this.#events = events[Symbol.asyncIterator]();
  }

  /** Reads until the condition holds or the stream has ended. */
  async until(condition: (seen: Observed) => boolean): Promise<Observed> {
    while (!condition(this.seen)) {
      const next = await this.#events.next();
      if (next.done === true) break;
      this.#take(next.value.event?.event);
    }
    return this.seen;
  }

  toEnd(): Promise<Observed> {
    return this.until(() => false);
  }

  #take(event: processProto.ProcessEvent["event"] | undefined): void {
    switch (event?.case) {
      case "start":
        this.seen.pid = event.value.pid;
        break;
      case "data": {
        const { output } = event.value;
        if (output.case !== undefined) this.seen[output.case] += Buffer.from(output.value).toString("latin1");
        break;
      }
      case "keepalive":
        this.seen.keepalives += 1;
        break;
      case "end":
        this.seen.end = event.value;
        break;
      case undefined:
        break;
    }
  }
}

export function observe(events: AsyncIterable<EventResponse>): Promise<Observed> {
  return new ProcessEvents(events).toEnd();
}

/** A start request for a shell command. */
export function shell(script: string, more: { readonly envs?: Record<string, string>; readonly cwd?: string } = {}) {
  return { process: { cmd: "/bin/sh", args: ["-c", script], ...more } };
}

export function byPid(pid: number) {
  return { selector: { case: "pid", value: pid } } as const;
}

export function byTag(tag: string) {
  return { selector: { case: "tag", value: tag } } as const;
}

/** A zombie is not: who reaps orphans is none of the agent's business. */
export async function alive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  return stat !== null && !/\) [ZX] /.test(stat);
}

export async function eventually(condition: () => boolean | Promise<boolean>, withinMs = 5_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("what was waited for did not happen");
    await sleep(20);
  }
}
