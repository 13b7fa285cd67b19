import http from "node:http";
import { deadlines, errorBodySchema, WrennError } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { afterEach, expect, test } from "vitest";
import { z } from "zod";
import { makeApplication } from "./app.ts";

const answered = z.object({ name: z.string(), parts: z.array(z.object({ id: z.number() })) });

const logged: string[] = [];
let app: FastifyInstance | undefined;

afterEach(async () => {
  await app?.close();
  logged.length = 0;
});

/** What a route answers whose handler does this. */
async function answerOf(handler: () => unknown): Promise<{ status: number; text: string; body: unknown }> {
  const services = {
    log: createLog({ level: "info", destination: { write: (line) => logged.push(line) } }),
    requestObserver: { began: () => undefined, ended: () => undefined },
    requestBodyMs: deadlines.requestBody,
  };
  app = await makeApplication(services, (handle) => http.createServer(handle));
  app
    .withTypeProvider<ZodTypeProvider>()
    .get("/part", { schema: { response: { 200: answered } } }, (async () => handler()) as () => Promise<
      z.infer<typeof answered>
    >);
  const { statusCode, payload } = await app.inject("/part");
  return { status: statusCode, text: payload, body: JSON.parse(payload) };
}

test("a field that an answer's schema does not list never leaves, at any depth", async () => {
  const { status, body } = await answerOf(() => ({ name: "a", secret: "s", parts: [{ id: 1, secret: "s" }] }));
  expect([status, body]).toEqual([200, { name: "a", parts: [{ id: 1 }] }]);
});

test.each([
  ["an answer that does not fit its schema", () => ({ name: 7, parts: [], token: "hush" })],
  [
    "a failure that nobody foresaw",
    () => {
      throw new TypeError("hush");
    },
  ],
  [
    "a failure that is no error",
    () => {
      throw "hush"; // oxlint-disable-line typescript/only-throw-error -- what a library might do
    },
  ],
])("%s is internal: the log has it, the caller nothing of it", async (_what, handler) => {
  const { status, text, body } = await answerOf(handler);
  expect(status).toBe(500);
  expect(errorBodySchema.parse(body).error.code).toBe("internal");
  expect(text).not.toMatch(/hush|name|TypeError/);
  expect(logged.join("")).toMatch(/request failed/);
});

test("the cause of a known failure stays in the log", async () => {
  const { status, text } = await answerOf(() => {
    throw new WrennError("database_unavailable", { cause: new Error("password authentication failed for postgres") });
  });
  expect(status).toBe(503);
  expect(text).not.toContain("password");
  expect(logged.join("")).toContain("password authentication failed");
});
