/** How zod schemas become JSON Schema in the API's description, where that differs from what zod does by itself. */
import { z } from "zod";
import type { RegistryToJSONSchemaParams } from "zod/v4/core";

export const toJsonSchema: Pick<RegistryToJSONSchemaParams, "override"> = {
  override: ({ zodSchema, jsonSchema }) => {
    // Answers may get new fields, which must not break clients that are generated from the description.
    if (zodSchema instanceof z.ZodObject && zodSchema.def.catchall === undefined)
      delete jsonSchema.additionalProperties;
    // Zod leaves out the defaults of what is converted, because they are of the type that it is converted to.
    if (zodSchema instanceof z.ZodDefault && typeof zodSchema.def.defaultValue === "number") {
      jsonSchema.default = zodSchema.def.defaultValue;
    }
    // That a number without bounds is one that JavaScript can hold goes without saying.
    if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER && jsonSchema.maximum === Number.MAX_SAFE_INTEGER) {
      delete jsonSchema.minimum;
      delete jsonSchema.maximum;
    }
    // The same, in a form that more than JavaScript's regular expressions know.
    if (jsonSchema.pattern !== undefined)
      jsonSchema.pattern = jsonSchema.pattern.replaceAll(String.raw`\0`, String.raw`\u0000`);
    // Which the format says already, in fewer words.
    if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
    // An answer without a body.
    if (zodSchema instanceof z.ZodUndefined) jsonSchema.type = "null";
  },
};
