/** Names people choose. An allow-list, because a name may become part of a path: traversal must be impossible. */
import { WrennError } from "./errors.ts";

/** A letter or digit, then at most 63 letters, digits, dots, underscores and dashes. */
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * Checks a name at a boundary; the API and the host agent both call it.
 * @throws WrennError `invalid_name` (400)
 */
export function assertName(name: string, what: string): string {
  if (!namePattern.test(name)) {
    throw new WrennError("invalid_name", {
      message: `"${name.slice(0, 80)}" is not a valid ${what} name.`,
      details: { pattern: namePattern.source },
    });
  }
  return name;
}

/** The name of the built-in template. */
export const minimalTemplateName = "minimal";
