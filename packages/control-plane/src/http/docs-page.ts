/** The page at `/docs` on which the API can be read and tried. It loads nothing from anywhere else, and keeps no key. */
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyInstance } from "fastify";
import { followColorScheme, pageStyle } from "./docs-page-theme.ts";

/** Scripts and styles of this server only, and no requests to any other. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Must be called after `describeApi`. */
export async function serveDocsPage(app: FastifyInstance): Promise<void> {
  await app.register(swaggerUi, {
    routePrefix: "/docs",
    staticCSP: contentSecurityPolicy,
    theme: {
      title: "Wrenn API",
      css: [{ filename: "page.css", content: pageStyle }],
      js: [{ filename: "color-scheme.js", content: followColorScheme }],
    },
    uiConfig: {
      layout: "BaseLayout",
      deepLinking: true,
      displayRequestDuration: true,
      filter: true,
      tryItOutEnabled: true,
      persistAuthorization: false,
      showCommonExtensions: true,
      defaultModelsExpandDepth: 0,
      defaultModelExpandDepth: 3,
    },
  });
  app.get("/", { schema: { hide: true } }, async (_request, reply) => reply.redirect("/docs"));
}
