import { describe, expect, it } from "vitest";
import { describeError, errorRegistry, WrennError } from "./errors.ts";
import { fromErrorInfo, toErrorInfo } from "./rpc-errors.ts";
import type { ErrorInfo } from "./gen/host_agent_pb.ts";

function asReceived(fields: ReturnType<typeof toErrorInfo>): ErrorInfo {
  return { $typeName: "wrenn.host.v1.ErrorInfo", ...fields };
}

describe("errors", () => {
  it("keep code, message, suggestion and details over the RPC", () => {
    const sent = new WrennError("host_out_of_memory", { message: "10 MiB free", details: { free_mib: 10 } });
    const received = fromErrorInfo(asReceived(toErrorInfo(sent)), new Error("transport"));
    expect(received.toBody()).toEqual(sent.toBody());
  });

  it("become internal when the other side sends a code this one does not know", () => {
    const received = fromErrorInfo(
      asReceived({ code: "from_the_future", message: "x", suggestion: "", detailsJson: "" }),
      undefined,
    );
    expect(received.code).toBe("internal");
    expect(received.message).toBe("x");
  });

  it("never show their cause to a caller", () => {
    const error = new WrennError("internal", { cause: new Error("password=secret") });
    expect(JSON.stringify(error.toBody("r1"))).not.toContain("secret");
    expect(describeError(error)).toContain("secret");
  });

  it("all say what to do", () => {
    for (const [code, definition] of Object.entries(errorRegistry)) {
      expect(code).toMatch(/^[a-z][a-z_]+$/);
      expect(definition.message).toMatch(/\.$/);
      expect(definition.suggestion.length).toBeGreaterThan(10);
      expect(definition.status).toBeGreaterThanOrEqual(400);
    }
  });

  it("describe a chain of causes that loops only once", () => {
    const error = new Error("outer");
    error.cause = error;
    expect(describeError(error)).toBe("outer");
  });
});
