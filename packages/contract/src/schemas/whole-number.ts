/** Numbers in addresses, where everything is text. */
import { z } from "zod";

/**
 * A whole number, written in digits and nothing else: JavaScript's own conversion takes "" for 0, "1e3" for 1000 and " 7" for 7, none of
 * which anybody means.
 */
export function wholeNumber({ min, max = Number.MAX_SAFE_INTEGER }: { readonly min: number; readonly max?: number }) {
  return z.preprocess(
    (given) => (typeof given === "string" && /^\d+$/.test(given) ? Number(given) : given),
    z.number().int().min(min).max(max),
  );
}
