/** `exec/stream`: a command whose output and input are streamed. */
import { openingMessages } from "@wrenn/contract";
import { carry, isClientsDoing } from "./carry.ts";
import type { StreamConversation } from "./conversation.ts";

/** A command without a tag ends with its client: nobody would find it again. */
export async function execStream({ socket, opening, teamId, sandboxId, commands }: StreamConversation): Promise<void> {
  const { type: _type, ...command } = await opening.read(openingMessages.command);
  opening.end();
  const process = await commands.start(teamId, sandboxId, command);
  try {
    await carry(socket, process);
  } catch (error) {
    if (command.tag === undefined && isClientsDoing(error)) commands.abandonments.kill(process);
    throw error;
  }
}
