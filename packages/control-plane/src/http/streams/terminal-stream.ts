/** `pty`: a new terminal, or one that runs already, found by its tag. */
import { openingMessages } from "@wrenn/contract";
import type { AttachTerminalMessage, StartTerminalMessage } from "@wrenn/contract";
import type { StartCommand } from "../../services/commands.ts";
import { carry, isClientsDoing } from "./carry.ts";
import type { StreamConversation } from "./conversation.ts";

/** A terminal without a tag is hung up when its client leaves; one with a tag waits for the next client. */
export async function terminalStream(conversation: StreamConversation): Promise<void> {
  const message = await conversation.opening.read(openingMessages.terminal);
  conversation.opening.end();
  if (message.type === "attach") await attach(conversation, message);
  else await start(conversation, message);
}

async function start(
  { socket, teamId, sandboxId, commands }: StreamConversation,
  ask: StartTerminalMessage,
): Promise<void> {
  const process = await commands.start(teamId, sandboxId, asCommand(ask));
  try {
    await carry(socket, process);
  } catch (error) {
    if (ask.tag === undefined && isClientsDoing(error)) commands.abandonments.hangUp(process);
    throw error;
  }
}

async function attach(
  { socket, teamId, sandboxId, commands }: StreamConversation,
  { tag, cols, rows }: AttachTerminalMessage,
): Promise<void> {
  const process = await commands.attach(teamId, sandboxId, { tag }, { replay: true, inputKinds: ["pty"] });
  try {
    // Its program is told of another size, and paints itself anew for it behind what is replayed.
    if (cols !== undefined && rows !== undefined) await process.resize({ cols, rows });
    await carry(socket, process);
  } finally {
    process.leave();
  }
}

function asCommand({ type: _type, cols, rows, cmd, args, ...rest }: StartTerminalMessage): StartCommand {
  const program = cmd === undefined ? loginShell(args) : { cmd, args };
  return { ...rest, ...program, stdin: true, terminal: { cols, rows } };
}

/** Only the guest knows the user's shell, and tells it to every process. */
function loginShell(args: readonly string[]): { cmd: string; args: string[] } {
  return { cmd: "/bin/sh", args: ["-c", 'exec "${SHELL:-/bin/sh}" -l "$@"', "sh", ...args] };
}
