/** For tests: the other side of QEMU's control protocol, scripted, where a real QEMU does not misbehave on demand. */
import { once } from "node:events";
import type { Server, Socket } from "node:net";
import { LineSplitter } from "../qmp.ts";

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n`;

/** Called for each command of the client after negotiation. */
export type ScriptedAnswer = (command: string, id: number, socket: Socket) => void;

export async function serveQmp(server: Server, socketPath: string, answer: ScriptedAnswer): Promise<void> {
  server.on("connection", (socket) => {
    socket.on("error", () => undefined);
    socket.write(greeting);
    const lines = new LineSplitter();
    socket.on("data", (chunk) => {
      for (const line of lines.push(chunk)) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        if (execute === "qmp_capabilities") socket.write(`{"return": {}, "id": ${id}}\r\n`);
        else answer(execute, id, socket);
      }
    });
  });
  server.listen(socketPath);
  await once(server, "listening");
}
