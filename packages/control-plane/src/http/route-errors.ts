/**
 * Which errors a route can answer: those that it names in its schema, and those that every route of its kind can. The description of
 * the API (openapi.ts) is made from it, and tests fail when a route answers any other.
 */
import type { ErrorCode } from "@wrenn/contract";
import type { FastifySchema } from "fastify";

declare module "fastify" {
  interface FastifySchema {
    /** Codes that this route can answer beside those that all routes of its kind can (http/route-errors.ts). */
    errors?: readonly ErrorCode[];
  }
}

export interface DescribedRoute {
  readonly url: string;
  readonly method: string | readonly string[];
  readonly schema?: FastifySchema | undefined;
}

/** Of every request, whatever it is for: the server itself may refuse or fail. */
const always: readonly ErrorCode[] = ["invalid_request", "headers_too_large", "internal", "shutting_down"];
const behindKey: readonly ErrorCode[] = ["unauthorized", "database_unavailable"];
/** Where the address names a sandbox. */
const ofSandbox: readonly ErrorCode[] = ["invalid_id", "sandbox_not_found"];
const withBody: readonly ErrorCode[] = ["unsupported_media_type", "request_timeout"];
const withJson: readonly ErrorCode[] = ["malformed_json", "body_too_large"];
const methodsWithBody: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/** For the schemas of routes that have a host agent do something. */
export const hostErrors: readonly ErrorCode[] = [
  "host_unavailable",
  "host_out_of_disk",
  "engine_failed",
  "network_setup_failed",
  "subprocess_failed",
];

/** Why a sandbox that was there is there no more, or will not be. */
const deaths: readonly ErrorCode[] = [
  "guest_panicked",
  "guest_out_of_memory",
  "guest_powered_off",
  "vm_died",
  "memory_unreadable",
  "disk_failed",
];

/** What the state of a sandbox may refuse. */
const stateErrors: readonly ErrorCode[] = ["sandbox_state_conflict", "sandbox_busy", "sandbox_died"];

/** Why a frozen state cannot be started from. */
const frozenErrors: readonly ErrorCode[] = ["snapshot_incompatible", "snapshot_damaged", "guest_init_failed"];

/** For the schemas of routes that have a host freeze a sandbox. */
export const freezeErrors: readonly ErrorCode[] = [
  ...hostErrors,
  ...deaths,
  ...stateErrors,
  "sandbox_paused",
  "snapshot_damaged",
];

/** For the schemas of routes that copy what a sandbox is, which may be paused. */
export const copyErrors: readonly ErrorCode[] = [...hostErrors, ...deaths, ...stateErrors, ...frozenErrors];

/** For the schemas of routes that start what is frozen, or has died. */
export const startErrors: readonly ErrorCode[] = [
  ...copyErrors,
  "sandbox_paused",
  "no_capacity",
  "host_out_of_memory",
  "engine_missing",
  "engine_unavailable",
  "engine_too_old",
];

export const creationErrors: readonly ErrorCode[] = [
  ...startErrors,
  "boot_files_missing",
  "guest_boot_timeout",
  "create_interrupted",
  "sandbox_state_conflict",
];

/** For the schemas of routes that ask a sandbox's guest agent. */
export const reachErrors: readonly ErrorCode[] = [
  "sandbox_state_conflict",
  "sandbox_paused",
  "sandbox_busy",
  "host_unavailable",
  "connection_lost",
  "port_closed",
  "guest_refused",
];

/** For the schemas of routes that start commands, which may see the sandbox die. */
export const commandErrors: readonly ErrorCode[] = [
  "command_not_found",
  "command_not_executable",
  "idle_timeout",
  ...deaths,
];

/** For the schemas of routes that look at files, and of those that change them. */
export const fileErrors: readonly ErrorCode[] = [
  ...reachErrors,
  "file_not_found",
  "file_access_denied",
  "wrong_file_type",
  "guest_timeout",
];
export const fileChangeErrors: readonly ErrorCode[] = [...fileErrors, "file_exists", "guest_out_of_disk"];

export function needsKey(url: string): boolean {
  return url.startsWith("/v1/");
}

export function errorsOf({ url, method, schema }: DescribedRoute): ReadonlySet<ErrorCode> {
  const takesBody = [method].flat().some((name) => methodsWithBody.has(name));
  return new Set([
    ...always,
    ...(needsKey(url) ? behindKey : []),
    ...(url.startsWith("/v1/sandboxes/:id") ? ofSandbox : []),
    ...(takesBody ? withBody : []),
    ...(takesBody && schema?.rawBody === undefined ? withJson : []),
    ...(schema?.errors ?? []),
  ]);
}
