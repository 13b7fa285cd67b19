import { type ErrorCode, errorRegistry, WrennError } from "@wrenn/contract";
import { describe, expect, it } from "vitest";
import { classified, failure } from "./errors.ts";
import * as sdk from "./index.ts";

const codes = Object.keys(errorRegistry) as ErrorCode[];

describe("errors", () => {
  it.each(codes)("of code %s are WrennErrors of a class that is exported", (code) => {
    const error = failure(code);
    expect(error).toBeInstanceOf(WrennError);
    expect(error.code).toBe(code);
    expect(Object.entries(sdk)).toContainEqual([error.name, error.constructor]);
  });

  it.each([
    ["unauthorized", sdk.AuthenticationError],
    ["no_capacity", sdk.CapacityError],
    ["command_not_found", sdk.CommandError],
    ["sandbox_busy", sdk.ConflictError],
    ["connection_lost", sdk.ConnectionError],
    ["file_exists", sdk.FileError],
    ["guest_panicked", sdk.GuestError],
    ["invalid_name", sdk.InvalidRequestError],
    ["sandbox_not_found", sdk.SandboxNotFoundError],
    ["response_timeout", sdk.TimeoutError],
    ["internal", WrennError],
  ] as const)("of code %s have the class that says what kind they are", (code, errorClass) => {
    expect(failure(code).constructor).toBe(errorClass);
  });

  it("keep all that is known when they are given their class", () => {
    const known = { message: "m", suggestion: "s", details: { a: 1 }, requestId: "r", cause: new Error("c") };
    expect(classified(new WrennError("file_not_found", known))).toMatchObject({ name: "FileError", ...known });
    const error = failure("file_not_found");
    expect(classified(error)).toBe(error);
  });
});
