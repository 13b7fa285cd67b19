/** Which sandbox a person means: by its id, or by as much of its beginning or end as tells it from the others. */
import { formatId, parseId, WrennError } from "@wrenn/contract";

const wholeLength = "sb-00000000-0000-0000-0000-000000000000".length;
/** At least four digits: fewer are more likely a slip of the finger than a name. */
const part = /^(?:sb-)?[0-9a-f-]{4,}$/;
/** How many candidates a refusal names. */
const shownCandidates = 5;

/**
 * The id that `given` stands for. Ids begin with the time at which they were made, so that it is mostly their end that tells
 * them apart; `sb-` before it means the beginning only.
 * @param list called only where `given` is not a whole id
 * @throws WrennError `invalid_id` for what is no part of an id, or of several; `sandbox_not_found` for a part of none
 */
export async function resolveSandboxId(given: string, list: () => Promise<readonly string[]>): Promise<string> {
  if (given.length >= wholeLength || !part.test(given)) return formatId("sandbox", parseId("sandbox", given));
  const matching = (await list()).filter((id) => isPartOf(given, id));
  const [id, ...others] = matching;
  if (id === undefined) {
    throw new WrennError("sandbox_not_found", {
      message: `No sandbox has an id that begins or ends with "${given}".`,
      suggestion: "`wrenn ls` shows those there are; one that has stopped is found by its whole id only.",
    });
  }
  if (others.length === 0) return id;
  const shown = matching.slice(0, shownCandidates).join(", ");
  throw new WrennError("invalid_id", {
    message: `"${given}" may mean ${matching.length} sandboxes: ${shown}${matching.length > shownCandidates ? ", …" : ""}.`,
    suggestion: "Give more of the id, or all of it.",
    details: { candidates: matching.slice(0, shownCandidates) },
  });
}

function isPartOf(given: string, id: string): boolean {
  if (given.startsWith("sb-")) return id.startsWith(given);
  return id.startsWith(`sb-${given}`) || id.endsWith(given);
}
