/** What is answered where no route matches: 405 with `Allow` where the address exists, 404 where it does not. */
import { WrennError } from "@wrenn/contract";
import type { FastifyInstance } from "fastify";

/** Must be called before the routes are registered, because it listens to their registration. */
export function answerUnknownRoutes(app: FastifyInstance): void {
  const methodsByUrl = new Map<string, { readonly pattern: RegExp; readonly methods: Set<string> }>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = methodsByUrl.get(url) ?? { pattern: patternOf(url), methods: new Set<string>() };
    for (const name of [method].flat()) known.methods.add(name);
    methodsByUrl.set(url, known);
  });
  app.setNotFoundHandler(async (request, reply) => {
    const [path = ""] = request.url.split("?");
    const known = [...methodsByUrl.values()].find(({ pattern }) => pattern.test(path));
    if (known === undefined) throw new WrennError("route_not_found");
    const allowed = [...known.methods].sort().join(", ");
    void reply.header("Allow", allowed);
    throw new WrennError("method_not_allowed", {
      message: `This address answers ${allowed}, not ${request.method}.`,
      details: { allowed: [...known.methods].sort() },
    });
  });
}

/** "/v1/sandboxes/:id" matches one path component in place of ":id". */
function patternOf(url: string): RegExp {
  const parts = url.split("/").map((part) => (part.startsWith(":") ? "[^/]+" : escapeText(part)));
  return new RegExp(`^${parts.join("/")}$`);
}

function escapeText(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
