/** One operation of the API's description: what its schemas say, and the errors that it can answer. */
import type { SwaggerTransform } from "@fastify/swagger";
import { errorRegistry, WrennError } from "@wrenn/contract";
import type { ErrorCode } from "@wrenn/contract";
import { createJsonSchemaTransform } from "fastify-type-provider-zod";
import { z } from "zod";
import { toJsonSchema } from "./openapi-json-schema.ts";
import { errorsOf, needsKey } from "./route-errors.ts";

interface Unchecked {
  /** Content type; without one there is no body. */
  readonly type?: string;
  readonly description: string;
}

declare module "fastify" {
  interface FastifySchema {
    /** A body that goes through as it comes. */
    rawBody?: Unchecked;
    /** Answers that go out as they are, by status: files, text, streams of events. */
    rawAnswers?: Readonly<Record<number, Unchecked>>;
  }
}

const transform = createJsonSchemaTransform({ zodToJsonConfig: toJsonSchema });
const errorReference = { $ref: "#/components/schemas/Error" };
const recordSchema = z.record(z.string(), z.unknown());

export const describeOperation: SwaggerTransform = (given) => {
  const { schema, url } = transform(given);
  if (schema.hide === true) return { schema, url };
  const { errors: _errors, rawBody, rawAnswers = {}, ...operation } = schema;
  return {
    url,
    schema: {
      ...operation,
      ...(rawBody === undefined ? {} : { body: describeRaw(rawBody) }),
      security: operation.security ?? (needsKey(url) ? [{ apiKey: [] }, { bearer: [] }] : []),
      response: {
        ...describeAnswers(given.schema.response, operation.response),
        ...Object.fromEntries(Object.entries(rawAnswers).map(([status, answer]) => [status, describeRaw(answer)])),
        ...describeErrors(errorsOf({ url, method: given.route.method, schema: given.schema }), operation.response),
      },
    },
  };
};

function describeRaw({ type, description }: Unchecked): object {
  if (type === undefined) return { type: "null", description };
  // What one event is, OpenAPI 3.1 has no words for.
  if (type === "text/event-stream") return { description, content: { [type]: { schema: {} } } };
  return { description, content: { [type]: { schema: { type: "string", format: "binary", description } } } };
}

/** Each answer is described by what its schema says of itself. */
function describeAnswers(schemas: unknown, described: unknown): Record<string, object> {
  const descriptions = recordSchema.parse(described ?? {});
  return Object.fromEntries(
    Object.entries(recordSchema.parse(schemas ?? {})).map(([status, schema]) => {
      const description = schema instanceof z.ZodType ? schema.description : undefined;
      return [status, { description: description ?? "Done.", ...recordSchema.parse(descriptions[status]) }];
    }),
  );
}

/** One answer for each status, with an example for each code. Where the route has another answer of that status, it is either. */
function describeErrors(codes: ReadonlySet<ErrorCode>, described: unknown): Record<string, object> {
  const others = recordSchema.parse(described ?? {});
  const byStatus: Record<string, ErrorCode[]> = {};
  for (const code of [...codes].sort()) (byStatus[errorRegistry[code].status] ??= []).push(code);
  return Object.fromEntries(
    Object.entries(byStatus).map(([status, codes]) => {
      const examples = Object.fromEntries(codes.map((code) => [code, { value: new WrennError(code).toBody("…") }]));
      const description = codes.map((code) => `\`${code}\`: ${errorRegistry[code].message}`).join("\n\n");
      const other = others[status];
      const schema = other === undefined ? errorReference : { anyOf: [other, errorReference] };
      return [status, { description, content: { "application/json": { schema, examples } } }];
    }),
  );
}
