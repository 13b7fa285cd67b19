/** Verbs for the server of this machine. */
import { type Command, Option } from "commander";
import { examples, type Finish, json } from "./options.ts";

export function addServerVerbs(program: Command, finish: Finish): void {
  program.commandsGroup("The server of this machine:");

  program
    .command("up")
    .description("start the server of this machine and keep it running")
    .option("-d, --detach", "start it in the background and return once it is ready", false)
    .addOption(new Option("--no-logs", "do not show the logs of the server's parts"))
    .addOption(json())
    .addHelpText("after", examples("wrenn up", ["wrenn up -d", "in the background"]))
    .action(async (options: { detach: boolean; logs: boolean; json?: boolean }) => {
      const { up } = await import("../commands/up.ts");
      finish(await up({ ...options, json: options.json ?? false }));
    });

  program
    .command("down")
    .description("stop the server of this machine")
    .addOption(
      new Option(
        "--destroy",
        "destroy all sandboxes: running, paused, and dead ones that could be recovered",
      ).conflicts("leaveRunning"),
    )
    .option("--leave-running", "let sandboxes run on; the next server adopts them")
    .addOption(json())
    .addHelpText("after", examples("wrenn down", ["wrenn down --destroy", "with all sandboxes"]))
    .action(async (options: { destroy?: boolean; leaveRunning?: boolean; json?: boolean }) => {
      const { down } = await import("../commands/down.ts");
      finish(await down({ destroy: false, leaveRunning: false, json: false, ...options }));
    });

  program
    .command("status")
    .description("show the server of this machine; exits with 3 when it does not run or is not well")
    .addOption(json())
    .addHelpText("after", examples("wrenn status || wrenn up -d"))
    .action(async (options: { json?: boolean }) => {
      const { status } = await import("../commands/status.ts");
      finish(await status({ json: false, ...options }));
    });

  program
    .command("setup")
    .description("install and build what is missing on this machine")
    .addHelpText("after", examples("wrenn setup"))
    .action(async () => {
      const { setup } = await import("../commands/setup.ts");
      finish(await setup());
    });

  program
    .command("doctor")
    .description("check what this machine has and lacks for Wrenn, and say what to do")
    .addOption(json())
    .addHelpText("after", examples("wrenn doctor"))
    .action(async (options: { json?: boolean }) => {
      const { doctor } = await import("../commands/doctor.ts");
      finish(await doctor({ json: false, ...options }));
    });
}
