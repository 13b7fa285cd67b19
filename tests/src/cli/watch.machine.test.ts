import { expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";
import type { CliProcess } from "../harness/cli.ts";

const api = useApiServer();
const cli = useCli(api);

async function inSandbox(script: string): Promise<void> {
  expect(await cli().run(["exec", api().sandbox.id, "--", "sh", "-c", script])).toMatchObject({ exitCode: 0 });
}

async function begin(...args: readonly string[]): Promise<CliProcess> {
  const watch = cli().spawn(["watch", ...args]);
  await watch.untilWritten("watching", "stderr");
  return watch;
}

it("watch prints a line for each change, whatever the file is called, until it is interrupted", async () => {
  await inSandbox("mkdir -p watched/below");
  const watch = await begin(api().sandbox.id, "watched");
  await inSandbox("cd watched && touch one && touch 'two\nlines\u001B[2J' && touch below/unseen && rm one");
  await watch.untilWritten("remove");
  watch.child.kill("SIGINT");
  const { exitCode, stdout } = await watch.result();
  expect(exitCode).toBe(130);
  const lines = stdout.toString().trimEnd().split("\n");
  expect(lines).toEqual(expect.arrayContaining(["create  one", "create  two\\u000alines\\u001b[2J", "remove  one"]));
  expect(lines.every((line) => /^(create|write|remove|rename|chmod) +\S/.test(line))).toBe(true);
  expect(stdout.toString()).not.toContain("unseen");
});

it("watch -r --json prints a line of JSON for each change, also below, and ends with the directory", async () => {
  await inSandbox("mkdir -p gone/below");
  const watch = await begin("-r", "--json", api().sandbox.id, "gone");
  await inSandbox("echo x > gone/below/file");
  await watch.untilWritten("below/file");
  await inSandbox("rm -r gone");
  const { exitCode, stdout, stderr } = await watch.result();
  expect(exitCode).toBe(0);
  expect(stderr).toContain("gone was removed");
  const changes = stdout
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);
  expect(changes).toContainEqual({ type: "create", name: "below/file" });
  expect(changes).toContainEqual({ type: "remove", name: "below" });
});

it("watch says what it cannot watch", async () => {
  const result = await cli().run(["watch", api().sandbox.id, "/etc/passwd"]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("(wrong_file_type)");
});
