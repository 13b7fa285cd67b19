/** Joins a process and a WebSocket: output one way, input and control messages the other, until either ends. */
import { controlMessage, streamChannels, WrennError } from "@wrenn/contract";
import type { ControlMessage, ProcessEnd } from "@wrenn/contract";
import type { FollowedProcess } from "../../services/followed-process.ts";
import type { ClientMessage } from "./inbox.ts";
import { parseMessage } from "./opening.ts";
import { ClientLeft } from "./stream-socket.ts";
import type { StreamSocket } from "./stream-socket.ts";

/**
 * Tells the client that the process has started, then everything that it does. Resolves when the client has been told the end. Whatever
 * happens, the process is not followed any longer.
 * @throws ClientLeft, or WrennError: what the client did wrong, or what happened to the server or the sandbox
 */
export async function carry(socket: StreamSocket, process: FollowedProcess): Promise<void> {
  try {
    // A process that its client has never heard of has nobody, whatever the reason.
    if (socket.over.aborted) throw new ClientLeft("the client has left before the process started");
    socket.say({ type: "started", pid: process.pid, tag: process.tag });
    const over = whenOver(socket);
    const end = await Promise.race([carryOutput(socket, process), carryInput(socket, process), over]);
    await socket.finish(end);
  } finally {
    process.leave();
  }
}

/** Whether it was the client that ended the conversation: it left, or it made a mistake. */
export function isClientsDoing(error: unknown): boolean {
  return error instanceof ClientLeft || (error instanceof WrennError && error.status < 500);
}

async function whenOver({ over }: StreamSocket): Promise<never> {
  return new Promise((_resolve, reject) => {
    over.addEventListener("abort", () => reject(over.reason), { once: true });
  });
}

async function carryOutput(socket: StreamSocket, process: FollowedProcess): Promise<ProcessEnd> {
  for await (const event of process.events()) {
    if (event.kind === "end") return event.end;
    await socket.sendOutput(event.channel, event.bytes);
  }
  // Followed no longer, which is what the other side of the race has brought about.
  return never();
}

/**
 * Input goes in its order, each piece when the process has taken the one before. Signals and sizes do not wait for it: a process that
 * does not read can be interrupted. What comes after them waits for them. Never resolves.
 */
async function carryInput(socket: StreamSocket, process: FollowedProcess): Promise<never> {
  let input = Promise.resolve();
  return new Promise((_resolve, reject) => {
    const afterInput = async (
      before: Promise<void>,
      message: ClientMessage,
      work: () => Promise<unknown>,
    ): Promise<void> => {
      await before;
      await work();
      socket.release(message);
    };
    const inOrder = (message: ClientMessage, work: () => Promise<unknown>): void => {
      input = afterInput(input, message, work);
      input.catch(reject);
    };
    const read = async (): Promise<void> => {
      for (let message = await socket.next(); message !== null; message = await socket.next()) {
        const action = parseAction(message);
        if (action.type === "input") inOrder(message, async () => process.write(action.bytes));
        else if (action.type === "close_stdin") inOrder(message, async () => process.closeInput());
        else {
          await (action.type === "signal" ? process.signal(action.signal) : process.resize(action));
          socket.release(message);
        }
      }
    };
    read().catch(reject);
  });
}

function parseAction({ isBinary, bytes }: ClientMessage): ControlMessage | { type: "input"; bytes: Uint8Array } {
  if (!isBinary) return parseMessage(bytes.toString("utf8"), controlMessage);
  if (bytes[0] === streamChannels.stdin) return { type: "input", bytes: bytes.subarray(1) };
  throw new WrennError("invalid_message", { message: "A binary message must begin with the channel byte 0." });
}

async function never(): Promise<never> {
  return new Promise(() => undefined);
}
