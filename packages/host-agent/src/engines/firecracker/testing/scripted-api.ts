/** For tests: the other side of Firecracker's API, scripted, where a real Firecracker needs KVM or does not misbehave on demand. */
import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";

/** What is answered to one request: a status, and what Firecracker says beside it. */
export type ScriptedAnswer = (
  request: { readonly what: string; readonly body: Readonly<Record<string, unknown>> },
  respond: (status: number, content?: object) => void,
) => void;

export async function serveApi(socketPath: string, answer: ScriptedAnswer): Promise<Server> {
  const server = createServer((request, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      const body = (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>;
      answer({ what: `${request.method} ${request.url}`, body }, (status, content) => {
        response.writeHead(status, { "content-type": "application/json" });
        response.end(content === undefined ? undefined : JSON.stringify(content));
      });
    });
  });
  server.listen(socketPath);
  await once(server, "listening");
  return server;
}
