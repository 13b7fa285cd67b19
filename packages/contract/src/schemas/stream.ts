/**
 * Messages of the WebSockets `exec/stream`, `pty` and `processes/{pid}/stream`. Text messages are JSON objects with a `type`. Binary
 * messages are a channel number and bytes: input from the client, output from the server.
 */
import { z } from "zod";
import { processLimits, terminalLimits } from "../limits.ts";
import { errorBodySchema } from "../errors.ts";
import { commandSchema, processEndSchema, signals } from "./exec.ts";

/** First byte of a binary message. The numbers are Kubernetes' (channel.k8s.io); a terminal's output is `stdout`. */
export const streamChannels = { stdin: 0, stdout: 1, stderr: 2 } as const;

const columns = z.number().int().min(terminalLimits.min).max(terminalLimits.max);
export const terminalSizeSchema = z.strictObject({
  cols: columns.default(terminalLimits.defaultCols),
  rows: columns.default(terminalLimits.defaultRows),
});

/** For browsers, which cannot send headers: must be the first message where the request had no key. */
const authenticate = z.strictObject({ type: z.literal("authenticate"), api_key: z.string() });

const process = commandSchema.extend({
  tag: z.string().min(1).max(processLimits.tagLength).optional(),
  timeout_seconds: z.number().positive().max(processLimits.timeoutSeconds.max).optional(),
});

/** First message of `exec/stream`. */
export const startCommandMessage = process.extend({ type: z.literal("start"), stdin: z.boolean().default(true) });
export type StartCommandMessage = z.infer<typeof startCommandMessage>;

/** First message of `pty`: a new terminal. Without a command it runs a login shell of the user. */
export const startTerminalMessage = process.extend({
  type: z.literal("start"),
  cmd: commandSchema.shape.cmd.optional(),
  ...terminalSizeSchema.shape,
});
export type StartTerminalMessage = z.infer<typeof startTerminalMessage>;

/** First message of `pty`: a terminal that runs, by the tag that it was started with. Its latest output is sent again. */
export const attachTerminalMessage = z.strictObject({
  type: z.literal("attach"),
  tag: z.string().min(1).max(processLimits.tagLength),
  cols: columns.optional(),
  rows: columns.optional(),
});
export type AttachTerminalMessage = z.infer<typeof attachTerminalMessage>;

/** Query of `processes/{pid}/stream`. */
export const attachStreamQuerySchema = z.strictObject({
  replay: z
    .enum(["true", "false"])
    .default("true")
    .describe("Whether the output kept so far, the last 64 KiB, comes first."),
});

/** What a client may send once the process runs, beside binary messages. */
export const controlMessage = z.discriminatedUnion("type", [
  /** The process reads end of file. Not for terminals. */
  z.strictObject({ type: z.literal("close_stdin") }),
  z.strictObject({ type: z.literal("signal"), signal: z.enum(signals) }),
  z.strictObject({ type: z.literal("resize"), cols: columns, rows: columns }),
]);
export type ControlMessage = z.infer<typeof controlMessage>;

export const openingMessages = {
  authenticate,
  command: startCommandMessage,
  terminal: z.discriminatedUnion("type", [startTerminalMessage, attachTerminalMessage]),
} as const;

/** What the server sends, beside binary messages. `exit` and `error` are the last. */
export const serverMessage = z.discriminatedUnion("type", [
  z.object({ type: z.literal("started"), pid: z.number().int(), tag: z.string().nullable() }),
  processEndSchema.extend({ type: z.literal("exit") }),
  errorBodySchema.extend({ type: z.literal("error") }),
]);
export type ServerMessage = z.infer<typeof serverMessage>;
