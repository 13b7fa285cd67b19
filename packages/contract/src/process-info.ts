/** A process as the guest agent lists it, in the words of the API and the SDK. */
import type { ProcessInfo } from "./gen/process_pb.ts";
import type { Process } from "./schemas/exec.ts";

export function asProcess({ pid, tag, config }: ProcessInfo): Process {
  return {
    pid,
    tag: tag ?? null,
    cmd: config?.cmd ?? "",
    args: config?.args ?? [],
    cwd: config?.cwd ?? null,
  };
}
