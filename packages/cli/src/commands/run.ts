/** `wrenn run`. */
import { layoutFromEnvironment } from "@wrenn/system";
import type { RunFlags } from "../verbs/commands.ts";
import { runInSandbox } from "../run/run-in-sandbox.ts";

export async function run(command: string, args: readonly string[], flags: RunFlags): Promise<number> {
  return runInSandbox({
    layout: layoutFromEnvironment(),
    command,
    args,
    env: flags.env ?? {},
    ...(flags.template === undefined ? {} : { template: flags.template }),
    ...(flags.vcpus === undefined ? {} : { vcpus: flags.vcpus }),
    ...(flags.memory === undefined ? {} : { memoryMib: flags.memory }),
    ...(flags.disk === undefined ? {} : { diskMib: flags.disk }),
    ...(flags.timeout === undefined ? {} : { timeoutMs: flags.timeout }),
    ...(flags.user === undefined ? {} : { user: flags.user }),
    ...(flags.cwd === undefined ? {} : { cwd: flags.cwd }),
    tty: flags.tty,
    keep: flags.keep,
    quiet: flags.quiet,
    json: flags.json ?? false,
  });
}
