/** Commands and processes in a sandbox, as the public API shows and takes them. */
import { z } from "zod";
import { execLimits, processLimits } from "../limits.ts";
import { environmentSchema, sandboxParamsSchema } from "./sandbox.ts";
import { wholeNumber } from "./whole-number.ts";

const argument = z
  .string()
  .max(execLimits.argumentBytes)
  .regex(/^[^\0]*$/, "an argument has no NUL in it");

const userSchema = z.string().min(1).max(64).describe("Name of a user of the sandbox.");

/** What is started, and as whom: no shell is involved. */
export const commandSchema = z.strictObject({
  cmd: argument
    .min(1)
    .describe("A program: a name that is looked up on the PATH of the sandbox, or a path. No shell is involved."),
  args: z.array(argument).max(execLimits.arguments).default([]).describe("Its arguments, without its name."),
  envs: environmentSchema.default({}).describe("Added to, and stronger than, the sandbox's own environment."),
  cwd: argument.min(1).optional().describe("Where it runs. Default: the user's home directory."),
  user: userSchema.optional().describe("Who runs it. Default: the sandbox's default user."),
});
export type Command = z.infer<typeof commandSchema>;

export const encodings = ["utf-8", "base64"] as const;
export type Encoding = (typeof encodings)[number];

const tagSchema = z.string().min(1).max(processLimits.tagLength);
const lifetimeSchema = z.number().positive().max(processLimits.timeoutSeconds.max);

export const execSchema = commandSchema
  .extend({
    stdin: z.string().default("").describe("What it reads before end of file."),
    stdin_encoding: z.enum(encodings).default("utf-8").describe("How `stdin` is written."),
    timeout_seconds: z
      .number()
      .positive()
      .max(execLimits.timeoutSeconds.max)
      .default(execLimits.timeoutSeconds.default)
      .describe("When so many seconds have passed, the command is killed with its whole process group."),
    max_output_bytes: z
      .number()
      .int()
      .min(execLimits.outputBytes.min)
      .max(execLimits.outputBytes.max)
      .default(execLimits.outputBytes.default)
      .describe("Bytes kept of each of standard output and standard error."),
  })
  .refine(({ stdin, stdin_encoding }) => stdin_encoding !== "base64" || z.base64().safeParse(stdin).success, {
    path: ["stdin"],
    message: "is not base64",
  })
  .meta({
    id: "Exec",
    description: "A command that is waited for.",
    examples: [
      { cmd: "uname", args: ["-a"] },
      { cmd: "sh", args: ["-c", "wc -l"], stdin: "one\ntwo\n", timeout_seconds: 5 },
    ],
  });
export type Exec = z.infer<typeof execSchema>;
export type ExecInput = z.input<typeof execSchema>;

/** How a process ended. */
export const processEndSchema = z.object({
  exit_code: z.number().int().describe("As a shell reports it: the exit status, or 128 + signal number."),
  exited: z.boolean().describe("True when it exited by itself, false when a signal ended it."),
  timed_out: z.boolean().describe("True when its time had passed, so that it was killed."),
  oom_killed: z.boolean().describe("True when the sandbox was out of memory, and its kernel ended the command."),
});
export type ProcessEnd = z.infer<typeof processEndSchema>;

const encodingSchema = z.enum(encodings).describe("`utf-8` where the bytes are that, else `base64`.");

export const execResultSchema = processEndSchema
  .extend({
    stdout: z.string().describe("What it wrote to its standard output, at most `max_output_bytes` of it."),
    stdout_encoding: encodingSchema,
    stdout_bytes: z.number().int().describe("How many bytes it wrote, kept or not."),
    stdout_truncated: z.boolean().describe("True when there was more: `stdout` has the beginning."),
    stderr: z.string().describe("The same of its standard error."),
    stderr_encoding: encodingSchema,
    stderr_bytes: z.number().int(),
    stderr_truncated: z.boolean(),
    duration_ms: z.number().describe("Milliseconds from its start to its end."),
  })
  .meta({
    id: "ExecResult",
    description: "The command has ended, however that was.",
    examples: [
      {
        exit_code: 0,
        exited: true,
        timed_out: false,
        oom_killed: false,
        stdout: "hello\n",
        stdout_encoding: "utf-8",
        stdout_bytes: 6,
        stdout_truncated: false,
        stderr: "",
        stderr_encoding: "utf-8",
        stderr_bytes: 0,
        stderr_truncated: false,
        duration_ms: 7,
      },
    ],
  });
export type ExecResult = z.infer<typeof execResultSchema>;

/** A process that is started in the background. */
export const startProcessSchema = commandSchema
  .extend({
    tag: tagSchema.optional().describe("A name to find it by; not two processes at once may have the same."),
    stdin: z
      .boolean()
      .default(false)
      .describe("Whether it gets a standard input that can be written to; else it reads end of file."),
    timeout_seconds: lifetimeSchema
      .optional()
      .describe("When so many seconds have passed, it is killed with its whole process group. Without it, never."),
  })
  .meta({
    id: "StartProcess",
    description: "A process that is not waited for.",
    examples: [{ cmd: "python3", args: ["-m", "http.server", "8000"], tag: "web" }],
  });
export type StartProcess = z.infer<typeof startProcessSchema>;
export type StartProcessInput = z.input<typeof startProcessSchema>;

export const startedProcessSchema = z
  .object({
    pid: z.number().int().describe("Its process id in the sandbox."),
    tag: z.string().nullable().describe("The name that it was started with."),
  })
  .meta({ id: "StartedProcess", description: "The process runs." });
export type StartedProcess = z.infer<typeof startedProcessSchema>;

export const processSchema = startedProcessSchema
  .extend({ cmd: z.string(), args: z.array(z.string()), cwd: z.string().nullable() })
  .meta({ id: "Process", description: "A process that was started through Wrenn." });
export type Process = z.infer<typeof processSchema>;

export const listProcessesSchema = z
  .object({ processes: z.array(processSchema) })
  .meta({ id: "ProcessList", description: "The processes that were started through Wrenn and have not ended." });

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

export const processPidSchema = wholeNumber({ min: 1, max: 4_294_967_295 }).describe("Process id in the sandbox.");

/** Of every address below `/v1/sandboxes/{id}/processes/{pid}`. */
export const processParamsSchema = sandboxParamsSchema.extend({ pid: processPidSchema });

export const signalProcessSchema = z
  .strictObject({ signal: z.enum(signals).default("SIGTERM") })
  .meta({ id: "SignalProcess", description: "What to send.", examples: [{ signal: "SIGINT" }] });
