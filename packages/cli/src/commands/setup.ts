/** `wrenn setup`: installs and builds what is missing. */
import { layoutFromEnvironment } from "@wrenn/system";
import { repositoryRoot } from "../server/installation.ts";
import { runSetup } from "../setup/index.ts";
import { say } from "../terminal/messages.ts";

export async function setup(): Promise<number> {
  await runSetup({ layout: layoutFromEnvironment(), repositoryRoot, output: process.stderr });
  say("everything Wrenn needs is in place");
  return 0;
}
