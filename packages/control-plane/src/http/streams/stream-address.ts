/** The addresses of the API's WebSockets. */
import { attachStreamQuerySchema, parseId, processPidSchema, WrennError } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";

/** As routes of the API, which answer requests that are no WebSockets. */
export const streamRoutes = {
  command: "/v1/sandboxes/:id/exec/stream",
  terminal: "/v1/sandboxes/:id/pty",
  attach: "/v1/sandboxes/:id/processes/:pid/stream",
} as const;

export type StreamAddress = { readonly route: string; readonly sandboxId: SandboxId } & (
  | { readonly kind: "command" }
  | { readonly kind: "terminal" }
  | { readonly kind: "attach"; readonly pid: number; readonly replay: boolean }
);

const pathPattern = /^\/v1\/sandboxes\/([^/]+)\/(?:(exec\/stream)|(pty)|processes\/([^/]+)\/stream)$/;

/**
 * Null where no WebSocket is.
 * @throws WrennError `invalid_id`, `invalid_request`
 */
export function parseStreamAddress(target: string): StreamAddress | null {
  const [path = "", query = ""] = target.split("?", 2);
  const [, id, command, terminal, pid] = pathPattern.exec(path) ?? [];
  if (id === undefined) return null;
  const sandboxId = parseId("sandbox", id);
  if (command !== undefined) return { kind: "command", route: streamRoutes.command, sandboxId };
  if (terminal !== undefined) return { kind: "terminal", route: streamRoutes.terminal, sandboxId };
  const parsedPid = processPidSchema.safeParse(pid);
  if (!parsedPid.success) throw invalid("pid", "is not the number of a process");
  const parsedQuery = attachStreamQuerySchema.safeParse(Object.fromEntries(new URLSearchParams(query)));
  if (!parsedQuery.success) throw invalid("replay", "expected true or false, and nothing else");
  const replay = parsedQuery.data.replay === "true";
  return { kind: "attach", route: streamRoutes.attach, sandboxId, pid: parsedPid.data, replay };
}

function invalid(field: string, problem: string): WrennError {
  return new WrennError("invalid_request", {
    message: `The request is not valid: ${field}: ${problem}.`,
    details: { fields: [{ field, problem }] },
  });
}
