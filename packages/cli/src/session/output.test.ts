import { expect, it } from "vitest";
import { CapturedOutput } from "./output.ts";

it("captured output is text, with what is no UTF-8 replaced", async () => {
  const output = new CapturedOutput();
  await output.stdout(new TextEncoder().encode("gr"));
  await output.stdout(new Uint8Array([0xc3]));
  await output.stdout(new Uint8Array([0xbc]));
  await output.stderr(new Uint8Array([0xff]));
  expect(output.toJson()).toEqual({
    stdout: "grü",
    stdout_bytes_left_out: 0,
    stderr: "\uFFFD",
    stderr_bytes_left_out: 0,
  });
});

it("captured output has a bound, and says how much did not fit", async () => {
  const output = new CapturedOutput();
  const mebibyte = new Uint8Array(1_048_576).fill(97);
  for (let count = 0; count < 17; count += 1) await output.stdout(mebibyte);
  const result = output.toJson();
  expect(result["stdout_bytes_left_out"]).toBe(1_048_576);
  expect(String(result["stdout"]).length).toBe(16 * 1_048_576);
});
