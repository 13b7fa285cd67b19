/** What the conversation on one of the API's WebSockets has to do with. */
import type { SandboxId, TeamId } from "@wrenn/contract";
import type { Commands } from "../../services/commands.ts";
import type { Opening } from "./opening.ts";
import type { StreamSocket } from "./stream-socket.ts";

export interface StreamConversation {
  readonly socket: StreamSocket;
  readonly opening: Opening;
  readonly teamId: TeamId;
  readonly sandboxId: SandboxId;
  readonly commands: Commands;
}
