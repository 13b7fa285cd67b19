/** `wrenn create`. */
import { randomUUID } from "node:crypto";
import { deadlines } from "@wrenn/contract";
import { type CreateSandboxOptions, Sandbox } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { ensureServer } from "../ensure-server.ts";
import { sandboxToJson } from "../sandbox-json.ts";
import { interruptible, type Interrupts } from "../session/interrupts.ts";
import { printJson, say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";
import type { CreateFlags } from "../verbs/sandboxes.ts";

/** Prints the id. Interrupted, it leaves no sandbox behind that nobody knows of. */
export async function createSandbox(flags: CreateFlags): Promise<number> {
  const progress = new Progress({ quiet: flags.quiet === true || flags.json === true });
  const sandbox = await interruptible(async (interrupts) => {
    const { api } = await ensureServer(layoutFromEnvironment(), progress, interrupts.signal);
    const request: CreateSandboxOptions = {
      ...api,
      template: flags.template,
      vcpus: flags.vcpus,
      memoryMib: flags.memory,
      diskMib: flags.disk,
      timeoutMs: flags.timeout,
      onTimeout: flags.onTimeout,
      envs: flags.env,
      metadata: flags.metadata,
      idempotencyKey: randomUUID(),
    };
    return progress.during("creating a sandbox", () => createOrUndo(request, interrupts));
  });
  if (flags.json === true) printJson(sandboxToJson(sandbox.info));
  else process.stdout.write(`${sandbox.id}\n`);
  return 0;
}

async function createOrUndo(request: CreateSandboxOptions, interrupts: Interrupts): Promise<Sandbox> {
  try {
    return await Sandbox.create({ ...request, signal: interrupts.signal });
  } catch (error) {
    if (interrupts.signal.aborted) {
      interrupts.tidyingUp();
      say("wrenn: interrupted; destroying what the server has begun to make");
      // The same key: this is the sandbox that is being made, not another.
      const made = await Sandbox.create({ ...request, requestTimeoutMs: deadlines.createSandbox });
      await made.destroy();
    }
    throw error;
  }
}
