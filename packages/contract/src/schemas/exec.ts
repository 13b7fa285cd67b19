/** Commands and processes in a sandbox, as the public API shows and takes them. */
import { z } from "zod";
import { execLimits, processLimits } from "../limits.ts";
import { environmentSchema } from "./sandbox.ts";

const argument = z
  .string()
  .max(execLimits.argumentBytes)
  .regex(/^[^\0]*$/, "an argument has no NUL in it");

/** What is started, and as whom: no shell is involved. */
export const commandSchema = z.strictObject({
  /** A program: a name that is looked up on the PATH of the sandbox, or a path. */
  cmd: argument.min(1),
  args: z.array(argument).max(execLimits.arguments).default([]),
  /** Added to, and stronger than, the sandbox's own environment. */
  envs: environmentSchema.default({}),
  /** Default: the user's home directory. */
  cwd: argument.min(1).optional(),
  /** Default: the sandbox's default user. */
  user: z.string().min(1).max(64).optional(),
});
export type Command = z.infer<typeof commandSchema>;

export const encodings = ["utf-8", "base64"] as const;
export type Encoding = (typeof encodings)[number];

const tagSchema = z.string().min(1).max(processLimits.tagLength);
const lifetimeSchema = z.number().positive().max(processLimits.timeoutSeconds.max);

export const execSchema = commandSchema
  .extend({
    /** What the command reads; without it, end of file. */
    stdin: z.string().default(""),
    stdin_encoding: z.enum(encodings).default("utf-8"),
    /** When it passes, the command is killed with its whole process group. */
    timeout_seconds: z
      .number()
      .positive()
      .max(execLimits.timeoutSeconds.max)
      .default(execLimits.timeoutSeconds.default),
    /** Of each of standard output and standard error. */
    max_output_bytes: z
      .number()
      .int()
      .min(execLimits.outputBytes.min)
      .max(execLimits.outputBytes.max)
      .default(execLimits.outputBytes.default),
  })
  .refine(({ stdin, stdin_encoding }) => stdin_encoding !== "base64" || z.base64().safeParse(stdin).success, {
    path: ["stdin"],
    message: "is not base64",
  });
export type Exec = z.infer<typeof execSchema>;
export type ExecInput = z.input<typeof execSchema>;

/** How a process ended. */
export const processEndSchema = z.object({
  /** As a shell reports it: the exit status, or 128 + signal number. */
  exit_code: z.number().int(),
  /** True when it exited by itself, false when a signal ended it. */
  exited: z.boolean(),
  timed_out: z.boolean(),
  /** The guest kernel's out-of-memory killer ended it. */
  oom_killed: z.boolean(),
});
export type ProcessEnd = z.infer<typeof processEndSchema>;

export const execResultSchema = processEndSchema.extend({
  /** Text when it is UTF-8, else base64: see the encoding. */
  stdout: z.string(),
  stdout_encoding: z.enum(encodings),
  /** How many bytes the command wrote, kept or not. */
  stdout_bytes: z.number().int(),
  /** True when there was more than `max_output_bytes`: `stdout` has the beginning. */
  stdout_truncated: z.boolean(),
  stderr: z.string(),
  stderr_encoding: z.enum(encodings),
  stderr_bytes: z.number().int(),
  stderr_truncated: z.boolean(),
  duration_ms: z.number(),
});
export type ExecResult = z.infer<typeof execResultSchema>;

/** A process that is started in the background. */
export const startProcessSchema = commandSchema.extend({
  /** A name to find it by; not two processes at once may have the same. */
  tag: tagSchema.optional(),
  /** Whether it gets a standard input that can be written to; without it, it reads end of file. */
  stdin: z.boolean().default(false),
  /** When it passes, the process is killed with its whole process group; without it, it may live for ever. */
  timeout_seconds: lifetimeSchema.optional(),
});
export type StartProcess = z.infer<typeof startProcessSchema>;
export type StartProcessInput = z.input<typeof startProcessSchema>;

export const startedProcessSchema = z.object({ pid: z.number().int(), tag: z.string().nullable() });
export type StartedProcess = z.infer<typeof startedProcessSchema>;

export const processSchema = startedProcessSchema.extend({
  cmd: z.string(),
  args: z.array(z.string()),
  cwd: z.string().nullable(),
});
export type Process = z.infer<typeof processSchema>;

/** Those that were started through Wrenn and have not ended. */
export const listProcessesSchema = z.object({ processes: z.array(processSchema) });

export const signals = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGKILL",
  "SIGUSR1",
  "SIGUSR2",
  "SIGTERM",
  "SIGCONT",
  "SIGSTOP",
] as const;
export type SignalName = (typeof signals)[number];

export const processPidSchema = z.coerce.number().int().min(1).max(4_294_967_295);

export const signalProcessSchema = z.strictObject({ signal: z.enum(signals).default("SIGTERM") });
