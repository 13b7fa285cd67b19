/**
 * What is answered where no route matches: 404 where the address does not exist, 405 with `Allow` where it does, and to OPTIONS
 * the same `Allow`. Before anything is read of the body, whose type and content do not matter any more.
 */
import { WrennError } from "@wrenn/contract";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/** Must be called before the routes are registered, because it listens to their registration. */
export function answerUnknownRoutes(app: FastifyInstance): void {
  const methodsByUrl = new Map<string, { readonly pattern: RegExp; readonly methods: Set<string> }>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = methodsByUrl.get(url) ?? { pattern: patternOf(url), methods: new Set(["OPTIONS"]) };
    for (const name of [method].flat()) known.methods.add(name);
    methodsByUrl.set(url, known);
  });

  async function answer(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const [path = ""] = request.url.split("?");
    const matching = [...methodsByUrl.values()].filter(({ pattern }) => pattern.test(path));
    const allowed = [...new Set(matching.flatMap(({ methods }) => [...methods]))].sort();
    // A route may also have found that it has nothing: a file that does not exist.
    const isAnswered = request.method !== "OPTIONS" && allowed.includes(request.method);
    if (matching.length === 0 || isAnswered) throw new WrennError("route_not_found");
    void reply.header("Allow", allowed.join(", "));
    if (request.method === "OPTIONS") return reply.code(204).send();
    throw new WrennError("method_not_allowed", {
      message: `This address answers ${allowed.join(", ")}, not ${request.method}.`,
      details: { allowed },
    });
  }
  app.addHook("onRequest", async (request, reply) => (request.is404 ? answer(request, reply) : undefined));
  app.setNotFoundHandler(answer);
}

/** "/v1/sandboxes/:id" matches one path component in place of ":id", and "/docs/static/*" anything in place of "*". */
function patternOf(url: string): RegExp {
  const parts = url.split("/").map((part) => (part.startsWith(":") ? "[^/]+" : part === "*" ? ".*" : escapeText(part)));
  return new RegExp(`^${parts.join("/")}$`);
}

function escapeText(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
