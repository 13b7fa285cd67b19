/** Verbs that freeze, thaw, copy and revive sandboxes. */
import type { RecoverySource } from "@wrenn/contract";
import { type Command, Option } from "commander";
import { parseCount } from "../units.ts";
import { examples, type Finish, json, metadata, sandboxArgument, timeout, withOptions } from "./options.ts";

const recoverySources = ["disk", "last_pause"] as const satisfies readonly RecoverySource[];

export interface ForkFlags {
  count?: number;
  metadata?: Record<string, string>;
  timeout?: number | null;
  json?: boolean;
}

export interface RecoverFlags {
  from: RecoverySource;
  json?: boolean;
}

export function addLifecycleVerbs(program: Command, finish: Finish): void {
  withOptions(
    program
      .command("pause")
      .description("freeze sandboxes with memory, processes and disk, and free their memory and processors")
      .addArgument(sandboxArgument({ several: true, statuses: ["running"] })),
    json(),
  )
    .addHelpText(
      "after",
      `\nReturns once what was frozen is safe on the host's disk. A sandbox that is paused already stays so.`,
    )
    .addHelpText(
      "after",
      examples("wrenn pause 9a8057", ["wrenn pause $(wrenn ls -q --status running)", "all of them"]),
    )
    .action(async (sandboxes: string[], options: { json?: boolean }) => {
      const { pauseSandboxes } = await import("../commands/pause.ts");
      finish(await pauseSandboxes(sandboxes, options));
    });

  withOptions(
    program
      .command("resume")
      .description("let paused sandboxes go on where they were paused")
      .addArgument(sandboxArgument({ several: true, statuses: ["paused"] })),
    json(),
  )
    .addHelpText(
      "after",
      examples("wrenn resume 9a8057", ["wrenn resume $(wrenn ls -q --status paused)", "all of them"]),
    )
    .action(async (sandboxes: string[], options: { json?: boolean }) => {
      const { resumeSandboxes } = await import("../commands/resume.ts");
      finish(await resumeSandboxes(sandboxes, options));
    });

  withOptions(
    program
      .command("fork")
      .description("make copies of a sandbox that go on from this moment, and print their ids")
      .addArgument(sandboxArgument({ statuses: ["running", "paused"] })),
    new Option("-n, --count <count>", "how many; default: 1").argParser(parseCount),
    timeout("how long each copy may be idle, such as 30m, or never; default: as the sandbox itself"),
    metadata("something to find the copies by, instead of what the sandbox has; may be given several times"),
    json(),
  )
    .addHelpText("after", examples("wrenn fork 9a8057", "wrenn fork --count 3 --metadata branch=experiment 9a8057"))
    .action(async (sandbox: string, options: ForkFlags) => {
      const { forkSandbox } = await import("../commands/fork.ts");
      finish(await forkSandbox(sandbox, options));
    });

  withOptions(
    program
      .command("recover")
      .description("start a sandbox again whose virtual machine has died")
      .addArgument(sandboxArgument({ statuses: ["error"] })),
    new Option("--from <source>", "what it starts from").choices(recoverySources).makeOptionMandatory(),
    json(),
  )
    .addHelpText(
      "after",
      `
disk        boots from the disk as the death left it, as after a power cut; what was in memory is lost.
last_pause  goes back to memory and disk of the last pause; whatever was done since is lost.
\`wrenn get\` shows which of them there are.`,
    )
    .addHelpText("after", examples("wrenn recover 9a8057 --from disk", "wrenn recover 9a8057 --from last_pause"))
    .action(async (sandbox: string, options: RecoverFlags) => {
      const { recoverSandbox } = await import("../commands/recover.ts");
      finish(await recoverSandbox(sandbox, options));
    });
}
