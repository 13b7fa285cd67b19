/** The command line against the server of `useApiServer`, as against one on another machine. */
import { afterAll, beforeAll } from "vitest";
import type { ApiServer } from "./api-server.ts";
import { type CliOptions, CliProcess, type CliResult, runCli } from "./cli.ts";
import { Terminal } from "./terminal.ts";

/** Also ends what a failed test has left running. */
export function useCli(api: () => ApiServer): () => ApiCli {
  let cli: ApiCli | undefined;
  beforeAll(() => {
    cli = new ApiCli(api());
  });
  afterAll(() => cli?.stop());
  return () => {
    if (cli === undefined) throw new Error("the server has not been started");
    return cli;
  };
}

type Options = Partial<CliOptions>;

export class ApiCli {
  readonly env: NodeJS.ProcessEnv;
  readonly #started: { kill(): void }[] = [];

  constructor({ server }: ApiServer) {
    this.env = {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      WRENN_API_URL: server.url,
      WRENN_API_KEY: server.key,
    };
  }

  run(args: readonly string[], options: Options = {}): Promise<CliResult> {
    return runCli(args, { ...options, env: { ...this.env, ...options.env } });
  }

  spawn(args: readonly string[], options: Options = {}): CliProcess {
    const cli = new CliProcess(args, { ...options, env: { ...this.env, ...options.env } });
    this.#started.push({ kill: () => void cli.child.kill("SIGKILL") });
    return cli;
  }

  terminal(
    args: readonly string[],
    options: { env?: NodeJS.ProcessEnv; cols?: number; rows?: number; program?: readonly string[] } = {},
  ): Terminal {
    const terminal = new Terminal(args, { ...options, env: { ...this.env, ...options.env } });
    this.#started.push(terminal);
    return terminal;
  }

  stop(): void {
    for (const process of this.#started) process.kill();
  }
}
