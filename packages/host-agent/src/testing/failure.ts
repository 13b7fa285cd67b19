/** For tests: why a call of a host agent fails. */
import { ConnectError } from "@connectrpc/connect";
import { hostAgentProto } from "@wrenn/contract";

/** The code of the registry that a call fails with; "none" for one that does not. */
export async function failureOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return error.findDetails(hostAgentProto.ErrorInfoSchema)[0]?.code ?? `no code: ${error.message}`;
  }
  return "none";
}
