/** Verbs for several things at once: all are tried, and what failed is said of each. */
import { asWrennError } from "@wrenn/contract";
import type { ConnectionOptions, RequestOptions } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "./local-server.ts";
import { listIds } from "./open-sandbox.ts";
import { resolveSandboxId } from "./sandbox-ids.ts";
import { interruptible } from "./session/interrupts.ts";
import { waitForServer } from "./session/waiting.ts";
import { printJson, reportError, say } from "./terminal/messages.ts";

export interface EachOptions {
  json: boolean;
  /** What is being done: `pausing`. */
  doing: string;
  /** The name in JSON of those for which it succeeded: `paused`. */
  done: string;
}

type Api = ConnectionOptions & RequestOptions;
type Act = (name: string, api: Api) => Promise<unknown>;

/** How things of one kind are told apart. */
interface Naming {
  key: "id" | "name";
  /** The whole of what was given in part. */
  complete(given: string, api: Api): Promise<string>;
}

/**
 * Resolves with the exit code: 1 when it failed for any.
 * @param given ids, or parts of them
 */
export async function tryEachSandbox(given: readonly string[], options: EachOptions, act: Act): Promise<number> {
  let listed: Promise<string[]> | undefined;
  const naming: Naming = {
    key: "id",
    complete: (part, api) => resolveSandboxId(part, () => (listed ??= listIds(api))),
  };
  return tryEach(given, naming, options, act);
}

/** As `tryEachSandbox`, by names, which have to be given whole. */
export async function tryEachSnapshot(names: readonly string[], options: EachOptions, act: Act): Promise<number> {
  return tryEach(names, { key: "name", complete: (name) => Promise.resolve(name) }, options, act);
}

async function tryEach(given: readonly string[], naming: Naming, options: EachOptions, act: Act): Promise<number> {
  const { json, doing, done } = options;
  const succeeded: string[] = [];
  const failed: Record<string, unknown>[] = [];
  await interruptible(async (interrupts) => {
    const { api } = await connectToServer(layoutFromEnvironment());
    const { signal } = interrupts;
    for (const [index, part] of given.entries()) {
      try {
        const name = await naming.complete(part, { ...api, signal });
        await waitForServer(`${doing} ${name}`, { interrupts, quiet: json }, () => act(name, { ...api, signal }));
        succeeded.push(name);
        if (!json) process.stdout.write(`${name}\n`);
      } catch (error) {
        if (signal.aborted) {
          sayUntouched(given.slice(index + 1));
          throw error;
        }
        failed.push({ [naming.key]: part, ...asWrennError(error).toBody() });
        if (!json) reportError(error, { json, about: given.length > 1 ? part : undefined });
      }
    }
  });
  if (json) printJson({ [done]: succeeded, failed });
  return failed.length === 0 ? 0 : 1;
}

function sayUntouched(rest: readonly string[]): void {
  if (rest.length > 0) say(`wrenn: not begun: ${rest.join(" ")}`);
}
