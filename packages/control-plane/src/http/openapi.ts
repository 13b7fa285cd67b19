/**
 * The description of the API, OpenAPI 3.1 at `/openapi.json`: made from the schemas by which requests are checked and answers are
 * shaped, and from the errors that routes name.
 */
import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import { version } from "../services/health.ts";
import { finishDocument } from "./openapi-document.ts";
import { describeOperation } from "./openapi-operation.ts";

const introduction = `Sandboxes, and everything that is done with them.

Send an API key in \`X-API-Key\`, or in \`Authorization: Bearer\`. Every failure has the shape of \`Error\`; its \`code\` is
stable, and one of those listed with the operation. Fields that there are not are refused in requests; answers may get new ones at
any time.`;

const tags = [
  { name: "Sandboxes", description: "Virtual machines of your team." },
  { name: "Snapshots", description: "Frozen sandboxes under a name, to start others from." },
  { name: "Commands", description: "Programs in a sandbox: run to their end, in the background, or in a terminal." },
  { name: "Files", description: "Files and directories of a sandbox, streamed both ways." },
  { name: "Observing", description: "What can be seen of a sandbox from outside it." },
  { name: "Server", description: "The server itself. Needs no key." },
];

/** Must be called before the routes are registered, because it listens to their registration. */
export async function describeApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Wrenn",
        version,
        description: introduction,
        license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
      },
      servers: [{ url: "/", description: "This server" }],
      tags,
      components: {
        securitySchemes: {
          apiKey: { type: "apiKey", in: "header", name: "X-API-Key", description: "`wrn_` and 40 hex digits." },
          bearer: { type: "http", scheme: "bearer", description: "The same key." },
        },
      },
    },
    convertConstToEnum: false,
    transform: describeOperation,
    transformObject: finishDocument,
  });
  let document: string | undefined;
  app.get("/openapi.json", { schema: { hide: true } }, async (_request, reply) => {
    document ??= JSON.stringify(app.swagger());
    return reply.type("application/json; charset=utf-8").send(document);
  });
}
