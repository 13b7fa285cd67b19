import { Readable } from "node:stream";
import { type ErrorCode, WrennError } from "@wrenn/contract";
import { expect, it } from "vitest";
import { forwardInput, type InputSink } from "./input.ts";

function input(...chunks: string[]): Readable {
  return Readable.from(chunks.map((chunk) => Buffer.from(chunk)));
}

/** A command that writes down what it is given, and fails at the second piece. */
function commandThatFails(code: ErrorCode) {
  const taken: string[] = [];
  return {
    taken,
    write: async (bytes: Uint8Array): Promise<void> => {
      if (taken.length === 1) throw new WrennError(code);
      taken.push(Buffer.from(bytes).toString());
      return Promise.resolve();
    },
    end: async (): Promise<void> => {
      taken.push("end");
      return Promise.resolve();
    },
  } satisfies InputSink & { taken: string[] };
}

it("input is handed on with its end, except to what has none", async () => {
  const command = commandThatFails("internal");
  await forwardInput(command, input("one"));
  expect(command.taken).toEqual(["one", "end"]);
  const terminal = commandThatFails("internal");
  await forwardInput({ write: terminal.write }, input("one"));
  expect(terminal.taken).toEqual(["one"]);
});

it.each(["process_not_found", "guest_refused"] as const)("%s means that no more input is wanted", async (code) => {
  const command = commandThatFails(code);
  await forwardInput(command, input("one", "two"));
  expect(command.taken).toEqual(["one"]);
});

it.each(["connection_lost", "host_unavailable"] as const)("%s is no end of input", async (code) => {
  await expect(forwardInput(commandThatFails(code), input("one", "two"))).rejects.toMatchObject({
    code,
  });
});
