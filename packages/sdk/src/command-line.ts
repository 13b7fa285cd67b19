/** What is run, and as whom. */
import { execLimits } from "@wrenn/contract";
import type { RequestOptions } from "./connection.ts";
import { failure } from "./errors.ts";

/**
 * A text is given to `/bin/bash -l -c`, so that pipes, variables and `&&` work. A list is a program and its arguments, which no
 * shell touches: use it for whatever contains input of others.
 */
export type CommandLine = string | readonly string[];

/** What any command takes, run or started. */
export interface ProcessOptions extends RequestOptions {
  /** Added to, and stronger than, the sandbox's environment; at most 128 KiB. */
  envs?: Readonly<Record<string, string>> | undefined;
  /** Default: the user's home directory. */
  cwd?: string | undefined;
  /** Who runs it; default the sandbox's default user. */
  user?: string | undefined;
  /** Milliseconds after which the guest kills the command with its whole process group; default none. */
  timeoutMs?: number | undefined;
}

/** @throws InvalidRequestError when there is no program */
export function processConfig(command: CommandLine, options: Pick<ProcessOptions, "envs" | "cwd">) {
  const [cmd, ...args] = typeof command === "string" ? ["/bin/bash", "-l", "-c", command] : command;
  if (cmd === undefined || cmd === "") throw failure("invalid_request", { message: "The command names no program." });
  if (args.length > execLimits.arguments) {
    throw failure("invalid_request", { message: `A command takes at most ${execLimits.arguments} arguments.` });
  }
  return { cmd, args, envs: { ...options.envs }, ...(options.cwd === undefined ? {} : { cwd: options.cwd }) };
}
