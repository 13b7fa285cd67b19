/** Waiting for what the server does to its end whether or not anybody waits. */
import { say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";
import type { Interrupts } from "./interrupts.ts";

/**
 * Shows what is being done while it lasts. An interrupt ends the waiting, not what the server does, which is said then.
 * @param doing `pausing sb-…`
 */
export async function waitForServer<Result>(
  doing: string,
  options: { interrupts: Interrupts; quiet: boolean },
  work: () => Promise<Result>,
): Promise<Result> {
  const { interrupts, quiet } = options;
  try {
    return await new Progress({ quiet }).during(doing, () => Promise.race([work(), interrupts.givenUp()]));
  } catch (error) {
    if (interrupts.signal.aborted) say(`wrenn: interrupted; the server goes on ${doing}`);
    throw error;
  }
}
