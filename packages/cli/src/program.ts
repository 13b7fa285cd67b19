/** The verbs of `wrenn` and their options. What a verb does is loaded only when it is used. */
import { Command, Option } from "commander";
import { readVersion } from "./server/installation.ts";
import { collectVariable, parseCount, parseDuration, parseMebibytes } from "./units.ts";

const json = (): Option => new Option("--json", "print the result, or the error, as JSON");

/** Sets the exit code of the process when its verb ends with something else than 0. */
export type Finish = (exitCode: number) => void;

export function makeProgram(finish: Finish): Command {
  const program = new Command("wrenn")
    .description("Run untrusted code in microVMs.")
    .version(readVersion(), "-V, --version")
    .enablePositionalOptions()
    .showHelpAfterError("(wrenn --help shows what there is)")
    .exitOverride()
    .configureHelp({ sortSubcommands: false });

  program
    .command("run")
    .description("run a command in a new sandbox, which is destroyed when the command ends")
    .argument("<command>", "program to run; put -- before it")
    .argument("[args...]", "its arguments")
    .passThroughOptions()
    .option("-e, --env <NAME=value>", "set a variable; NAME alone takes it from the environment", collectVariable)
    .option("--vcpus <count>", "processors of the sandbox", parseCount)
    .option("--memory <size>", "memory of the sandbox, such as 512M or 1G", parseMebibytes)
    .option("--disk <size>", "disk of the sandbox, such as 5G", parseMebibytes)
    .option("--timeout <duration>", "stop the command after 30s, 5m, …, and exit with 124", parseDuration)
    .option("-u, --user <name>", "who runs the command in the sandbox")
    .option("-w, --cwd <directory>", "where the command starts in the sandbox")
    .option("-t, --tty", "give the command a terminal", false)
    .option("--keep", "do not destroy the sandbox", false)
    .option("-q, --quiet", "say nothing of Wrenn's own, except errors and that output may be missing", false)
    .addOption(json())
    .action(async (command: string, args: string[], options: RunFlags) => {
      const { run } = await import("./commands/run.ts");
      finish(await run(command, args, options));
    });

  program
    .command("up")
    .description("start the server of this machine and keep it running")
    .option("-d, --detach", "start it in the background and return once it is ready", false)
    .addOption(new Option("--no-logs", "do not show the logs of the server's parts"))
    .addOption(json())
    .action(async (options: { detach: boolean; logs: boolean; json?: boolean }) => {
      const { up } = await import("./commands/up.ts");
      finish(await up({ ...options, json: options.json ?? false }));
    });

  program
    .command("down")
    .description("stop the server of this machine")
    .addOption(new Option("--destroy", "destroy the sandboxes that are running").conflicts("leaveRunning"))
    .option("--leave-running", "let sandboxes run on; the next server adopts them")
    .addOption(json())
    .action(async (options: { destroy?: boolean; leaveRunning?: boolean; json?: boolean }) => {
      const { down } = await import("./commands/down.ts");
      finish(await down({ destroy: false, leaveRunning: false, json: false, ...options }));
    });

  program
    .command("status")
    .description("show the server of this machine; exits with 3 when it does not run or is not well")
    .addOption(json())
    .action(async (options: { json?: boolean }) => {
      const { status } = await import("./commands/status.ts");
      finish(await status({ json: false, ...options }));
    });

  program
    .command("ls")
    .description("list sandboxes")
    .addOption(json())
    .action(async (options: { json?: boolean }) => {
      const { listSandboxes } = await import("./commands/ls.ts");
      finish(await listSandboxes({ json: false, ...options }));
    });

  program
    .command("rm")
    .description("destroy sandboxes with all they hold")
    .argument("<id...>", "ids as `wrenn ls` shows them")
    .addOption(json())
    .action(async (ids: string[], options: { json?: boolean }) => {
      const { removeSandboxes } = await import("./commands/rm.ts");
      finish(await removeSandboxes(ids, { json: false, ...options }));
    });

  program
    .command("setup")
    .description("install and build what is missing on this machine")
    .action(async () => {
      const { setup } = await import("./commands/setup.ts");
      finish(await setup());
    });

  program
    .command("doctor")
    .description("check what this machine has and lacks for Wrenn, and say what to do")
    .addOption(json())
    .action(async (options: { json?: boolean }) => {
      const { doctor } = await import("./commands/doctor.ts");
      finish(await doctor({ json: false, ...options }));
    });

  return program;
}

export interface RunFlags {
  env?: Record<string, string>;
  vcpus?: number;
  memory?: number;
  disk?: number;
  timeout?: number;
  user?: string;
  cwd?: string;
  tty: boolean;
  keep: boolean;
  quiet: boolean;
  json?: boolean;
}
