/**
 * The API's description as a whole: its named schemas, which are those that have an id (`.meta({ id })`) and that an operation refers to,
 * and what the library cannot know of operations.
 */
import type { SwaggerTransformObject } from "@fastify/swagger";
import { createJsonSchemaTransformObject } from "fastify-type-provider-zod";
import { z } from "zod";
import { toJsonSchema } from "./openapi-json-schema.ts";

const prefix = "#/components/schemas/";
/** What the library adds to the name of what is sent, as opposed to what is answered. */
const inputSuffix = "Input";

const transform = createJsonSchemaTransformObject({ zodToJsonConfig: toJsonSchema });
const schemasOf = z.looseObject({ schemas: z.record(z.string(), z.unknown()) });

export const finishDocument: SwaggerTransformObject = (given) => {
  const document = transform(given);
  for (const path of Object.values(document.paths ?? {})) {
    // It is answered wherever GET is.
    delete path?.head;
    const body = path?.put !== undefined && "requestBody" in path.put ? path.put.requestBody : undefined;
    // What is no JSON is taken as it comes, also when nothing comes.
    if (body !== undefined && "content" in body && !("application/json" in body.content)) body.required = false;
  }
  if (!("components" in document)) return document;
  const { schemas, ...others } = schemasOf.parse(document.components);
  const names = nameComponents(document.paths, schemas);
  const named = [...names].map(([id, name]) => [name, schemas[id]] as const).sort(([a], [b]) => (a < b ? -1 : 1));
  return rename({ ...document, components: { ...others, schemas: Object.fromEntries(named) } }, names);
};

/** What is referred to, directly or not, by its final name: without the suffix where nothing else needs the name. */
function nameComponents(paths: unknown, schemas: Record<string, unknown>): Map<string, string> {
  const used = new Set<string>();
  const visit = (value: unknown): void => {
    for (const id of referencesIn(value)) {
      if (used.has(id)) continue;
      used.add(id);
      visit(schemas[id]);
    }
  };
  visit(paths);
  return new Map(
    [...used].map((id) => {
      const bare = id.endsWith(inputSuffix) ? id.slice(0, -inputSuffix.length) : id;
      return [id, used.has(bare) ? id : bare];
    }),
  );
}

function referencesIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const isReference = key === "$ref" && typeof inner === "string" && inner.startsWith(prefix);
    return isReference ? [inner.slice(prefix.length)] : referencesIn(inner);
  });
}

function rename(document: object, names: ReadonlyMap<string, string>): ReturnType<SwaggerTransformObject> {
  return JSON.parse(JSON.stringify(document), (key, inner: unknown) => {
    if (key !== "$ref" || typeof inner !== "string" || !inner.startsWith(prefix)) return inner;
    const id = inner.slice(prefix.length);
    return `${prefix}${names.get(id) ?? id}`;
  });
}
