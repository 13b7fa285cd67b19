/** `processes/{pid}/stream`: a process that runs already, whoever started it. Leaving it changes nothing for it. */
import { carry } from "./carry.ts";
import type { StreamConversation } from "./conversation.ts";

export async function attachStream(
  { socket, opening, teamId, sandboxId, commands }: StreamConversation,
  { pid, replay }: { readonly pid: number; readonly replay: boolean },
): Promise<void> {
  opening.end();
  await carry(socket, await commands.attach(teamId, sandboxId, { pid }, { replay, inputKinds: ["stdin", "pty"] }));
}
