/** Identifiers: UUID v7 inside, prefixed on the wire (`sb-0190…`). The only place that formats or parses one. */
import { v7 } from "uuid";
import { WrennError } from "./errors.ts";

const prefixes = {
  sandbox: "sb",
  user: "usr",
  team: "team",
  template: "tpl",
  apiKey: "key",
  host: "host",
  event: "evt",
  generation: "gen",
  layer: "lyr",
} as const;

export type IdKind = keyof typeof prefixes;

/** A UUID in canonical lower-case form that is known to identify an entity of one kind. */
export type Id<Kind extends IdKind = IdKind> = string & { readonly __id: Kind };
export type SandboxId = Id<"sandbox">;
export type TeamId = Id<"team">;
export type TemplateId = Id<"template">;
export type ApiKeyId = Id<"apiKey">;
export type HostId = Id<"host">;
export type EventId = Id<"event">;
/** One committed state of a sandbox: memory, disk and devices of one moment. */
export type GenerationId = Id<"generation">;
/** One immutable file of memory or disk that generations refer to. */
export type LayerId = Id<"layer">;

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const zeroUuid = "00000000-0000-0000-0000-000000000000";

/** A new time-ordered id (UUID v7, RFC 9562). */
export function newId<Kind extends IdKind>(_kind: Kind): Id<Kind> {
  return v7() as Id<Kind>;
}

/** The wire form: `formatId("sandbox", id)` is `sb-{uuid}`. */
export function formatId<Kind extends IdKind>(kind: Kind, id: Id<Kind>): string {
  return `${prefixes[kind]}-${id}`;
}

/**
 * Parses the wire form of one kind of id.
 * @throws WrennError `invalid_id` (400) for another kind's prefix, or anything that is not a lower-case UUID behind it.
 */
export function parseId<Kind extends IdKind>(kind: Kind, text: string): Id<Kind> {
  const prefix = `${prefixes[kind]}-`;
  const uuid = text.slice(prefix.length);
  if (!text.startsWith(prefix) || !uuidPattern.test(uuid)) {
    throw new WrennError("invalid_id", {
      message: `"${text.slice(0, 80)}" is not a ${kind} id: expected ${prefix} followed by a UUID.`,
      details: { expected_prefix: prefix },
    });
  }
  return uuid as Id<Kind>;
}

/**
 * Accepts a bare UUID where a boundary of ours carries one (the host agent's RPC, database rows, path components).
 * @throws WrennError `invalid_id` (400)
 */
export function parseUuid<Kind extends IdKind>(kind: Kind, text: string): Id<Kind> {
  if (!uuidPattern.test(text)) {
    throw new WrennError("invalid_id", { message: `"${text.slice(0, 80)}" is not the UUID of a ${kind}.` });
  }
  return text as Id<Kind>;
}

/** Owns what everyone may use. */
export const platformTeamId = zeroUuid as TeamId;
/** The built-in template `minimal`. */
export const minimalTemplateId = zeroUuid as TemplateId;
