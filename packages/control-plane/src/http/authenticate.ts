/** Who calls: the owner of the API key in `X-API-Key`, or in `Authorization: Bearer`. */
import { WrennError } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { FastifyRequest } from "fastify";
import type { ApiKeys } from "../services/api-keys.ts";
import { presentedKey } from "../services/presented-key.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The caller's team. Only on routes behind `requireKey`. */
    teamId: TeamId;
  }
}

/** A hook that runs before the body is read, so that strangers cannot make the server parse anything. */
export function requireKey(apiKeys: ApiKeys) {
  return async (request: FastifyRequest): Promise<void> => {
    const key = presentedKey(request.headers);
    if (key === null) throw new WrennError("unauthorized", { message: "The request has no API key." });
    const owner = await apiKeys.verify(key);
    request.teamId = owner.teamId;
  };
}
