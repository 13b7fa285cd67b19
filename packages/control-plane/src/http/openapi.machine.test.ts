import { Validator } from "@seriousme/openapi-schema-validator";
import { errorRegistry, isErrorCode } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { TestServer } from "../testing/test-server.ts";

const described = z.looseObject({ description: z.string().min(1) });
const contentSchema = z.record(z.string(), z.looseObject({ schema: z.unknown(), examples: z.unknown() }).partial());
const operationSchema = z.looseObject({
  operationId: z.string().regex(/^[a-z]+([A-Z][a-z]+)*$/, "camelCase, beginning with a verb"),
  summary: z
    .string()
    .max(60)
    .regex(/^[A-Z].*[^.]$/, "a phrase without a full stop"),
  description: z.string().regex(/\.$/, "whole sentences"),
  tags: z.tuple([z.string()]),
  security: z.array(z.record(z.string(), z.array(z.string()))),
  parameters: z.array(described.extend({ name: z.string(), in: z.string(), schema: z.looseObject({}) })).default([]),
  requestBody: z.looseObject({ content: contentSchema }).optional(),
  responses: z.record(z.string(), described.extend({ content: contentSchema.default({}) })),
});
type Operation = z.infer<typeof operationSchema>;

const documentSchema = z.looseObject({
  openapi: z.literal("3.1.0"),
  tags: z.array(described.extend({ name: z.string() })),
  paths: z.record(z.string(), z.record(z.string(), operationSchema)),
  components: z.looseObject({ schemas: z.record(z.string(), z.looseObject({ description: z.string().optional() })) }),
});
type Document = z.infer<typeof documentSchema>;

let server: TestServer;
let text: string;

beforeAll(async () => {
  server = await TestServer.start();
  text = await (await fetch(`${server.url}/openapi.json`)).text();
});
afterAll(async () => server.stop());

/** Fails, naming the operation and the field, where a description lacks anything that every one has. */
function readDocument(): Document {
  return documentSchema.parse(JSON.parse(text));
}

function operations(): [name: string, operation: Operation][] {
  return Object.entries(readDocument().paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, Operation] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  );
}

/** Those operations of which something is true. */
function namesOf(holds: (operation: Operation, name: string) => boolean): string[] {
  return operations().flatMap(([name, operation]) => (holds(operation, name) ? [name] : []));
}

/** Status and code of each error that an operation has an example of. */
function errorsOf({ responses }: Operation): [status: number, code: string][] {
  return Object.entries(responses).flatMap(([status, { content }]) => {
    const { schema, examples } = content["application/json"] ?? {};
    if (!JSON.stringify(schema ?? null).includes('"#/components/schemas/Error"')) return [];
    const codes = Object.keys(z.record(z.string(), z.unknown()).parse(examples));
    return codes.map((code): [number, string] => [Number(status), code]);
  });
}

describe("/openapi.json", () => {
  test("is OpenAPI 3.1, and every reference in it leads somewhere", async () => {
    const validator = new Validator();
    expect(await validator.validate(JSON.parse(text))).toEqual({ valid: true });
    const { components } = readDocument();
    for (const [, id = ""] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      expect(Object.keys(components.schemas)).toContain(id);
    }
  });

  test("describes every operation: what it is called, does, takes and answers", () => {
    const all = operations();
    expect(all.length).toBeGreaterThan(4);
    const ids = all.map(([, { operationId }]) => operationId);
    expect(ids).toEqual([...new Set(ids)]);
    const tags = readDocument().tags.map(({ name }) => name);
    expect(namesOf(({ tags: [tag] }) => !tags.includes(tag))).toEqual([]);
    expect(namesOf(({ responses }) => !Object.keys(responses).some((status) => /^[12]\d\d$/.test(status)))).toEqual([]);
  });

  test("demands a key for all of /v1, and for nothing else", () => {
    const demanding = namesOf(({ security }) => JSON.stringify(security) === '[{"apiKey":[]},{"bearer":[]}]');
    expect(demanding).toEqual(operations().flatMap(([name]) => (name.includes(" /v1/") ? [name] : [])));
    const optional = namesOf(({ security }) => security.every((schemes) => Object.keys(schemes).length > 0));
    expect(optional.filter((name) => !demanding.includes(name)).filter((name) => name.includes(" /v1/"))).toEqual([]);
  });

  test("names the errors of each operation, by codes of the registry and with their status", () => {
    for (const [name, operation] of operations()) {
      const errors = errorsOf(operation);
      const registered = errors.map(([, code]) => [isErrorCode(code) ? errorRegistry[code].status : "unknown", code]);
      expect([name, ...errors]).toEqual([name, ...registered]);
      expect([name, ...errors]).toContainEqual([500, "internal"]);
    }
    expect(namesOf((operation, name) => name.includes(" /v1/") && !("401" in operation.responses))).toEqual([]);
  });

  test("has an example of every body that is JSON", () => {
    const { schemas } = readDocument().components;
    const component = z.looseObject({ examples: z.array(z.unknown()).min(1) });
    const isWithout = ({ requestBody }: Operation): boolean => {
      const schema = requestBody?.content["application/json"]?.schema;
      if (schema === undefined) return false;
      const { $ref } = z.object({ $ref: z.string() }).parse(schema);
      return !component.safeParse(schemas[$ref.split("/").at(-1) ?? ""]).success;
    };
    expect(namesOf(isWithout)).toEqual([]);
  });

  test("tells nothing of what is not for clients", () => {
    expect(Object.keys(readDocument().paths).filter((path) => path.startsWith("/docs") || path === "/")).toEqual([]);
  });
});
