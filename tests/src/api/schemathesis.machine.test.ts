/**
 * schemathesis reads the API's description and calls every operation with data that it allows and data that it forbids, alone and one
 * after the other. WRENN_FUZZ_SEED=<number> has it choose other data, WRENN_FUZZ_EXAMPLES=<number> more of it.
 */
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { layoutFromEnvironment, runUnchecked } from "@wrenn/system";
import { expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";

const program = path.join(layoutFromEnvironment().cache, "tools/schemathesis/bin/schemathesis");
const directory = path.join(repositoryRoot, "tests/schemathesis");
/** Far beyond what it takes; `--max-examples` is what bounds it. */
const timeoutMs = 600_000;

const api = useApiServer({ sealed: true });

test("whatever is sent, the answer is one that the description has", { timeout: timeoutMs }, async () => {
  const { server, sandbox } = api();
  const { WRENN_FUZZ_SEED: seed = "1", WRENN_FUZZ_EXAMPLES: examples = "10" } = process.env;
  const options = ["--seed", seed, "--max-examples", examples, "--continue-on-failure", "--no-shrink"];
  const { exitCode, stdout, stderr } = await runUnchecked(
    program,
    ["--no-color", "run", `${server.url}/openapi.json`, ...options],
    { cwd: directory, timeoutMs, env: { ...process.env, WRENN_KEY: server.key, WRENN_SANDBOX: sandbox.id } },
  );
  expect(exitCode, `${stdout}${stderr}`).toBe(0);
  // All of the API but its WebSockets was called.
  const [, selected, all, tested] = /Selected: (\d+)\/(\d+)\n\s+Tested: (\d+)\n/.exec(stdout) ?? [];
  expect([selected, tested]).toEqual([`${Number(all) - 3}`, selected]);
});
