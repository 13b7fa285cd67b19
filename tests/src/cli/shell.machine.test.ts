import { pollUntil } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";
import type { Terminal } from "../harness/terminal.ts";

const api = useApiServer();
const cli = useCli(api);

async function openShell(
  args: readonly string[] = [],
  options: Parameters<ReturnType<typeof cli>["terminal"]>[1] = {},
) {
  const terminal = cli().terminal(["shell", ...args, api().sandbox.id], options);
  await terminal.untilPrompt();
  return terminal;
}

/** Types a line and waits for a text that the line itself does not have. */
async function enter(terminal: Terminal, line: string, expected: string | RegExp): Promise<void> {
  const from = terminal.shown.length;
  terminal.type(`${line}\r`);
  await terminal.untilShown(expected, from);
}

async function processes(): Promise<{ pid: number; tag: string | null }[]> {
  const { stdout } = await cli().run(["ps", "--json", api().sandbox.id]);
  return (JSON.parse(stdout.toString()) as { processes: { pid: number; tag: string | null }[] }).processes;
}

async function untilNoProcesses(): Promise<unknown> {
  await pollUntil(async () => ((await processes()).length === 0 ? true : null), { timeoutMs: 20_000, intervalMs: 100 });
  return processes();
}

describe("a shell", () => {
  it("is as large as our terminal, follows its size, and its exit code is ours", async () => {
    const terminal = await openShell([], { cols: 101, rows: 33 });
    await enter(terminal, "stty size", "33 101");
    // Reading goes on where a change of size interrupts it, and says when it has.
    await enter(terminal, "trap 'echo now $(stty size)' WINCH; echo trap''ped", "trapped");
    terminal.resize(77, 22);
    await enter(terminal, "", "now 22 77");
    terminal.type("exit 42\r");
    expect(await terminal.result()).toEqual({ exitCode: 42, signal: null, restored: true });
  });

  it("gets every key as it is: Ctrl-C, Ctrl-Z, Ctrl-D", async () => {
    const terminal = await openShell();
    const sleep = "sh -c 'echo sleep''ing; exec sleep 1000'";
    await enter(terminal, sleep, "sleeping");
    await enter(terminal, "\u0003echo code=$?", "code=130");
    await enter(terminal, sleep, "sleeping");
    await enter(terminal, "\u001Aecho code=$?", "code=148");
    await enter(terminal, "fg", "exec sleep 1000'");
    await enter(terminal, "\u0003echo code=$?", "code=130");
    terminal.type("exit 0\r");
    await terminal.result();
    const other = await openShell();
    other.type("\u0004");
    expect(await other.result()).toMatchObject({ exitCode: 0, restored: true });
  });

  it("shows bytes as the program wrote them", async () => {
    const terminal = await openShell();
    await enter(terminal, "stty -opost; printf '<%b>' 'a\\nb\\0303\\0251'; stty opost", "<a\nbé>");
    terminal.type("exit\r");
    expect(await terminal.result()).toMatchObject({ exitCode: 0 });
  });

  it.each([
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const)("%s hangs up: the terminal is as before, and the shell is gone", async (signal, exitCode) => {
    const terminal = await openShell();
    terminal.signal(signal);
    expect(await terminal.result()).toEqual({ exitCode, signal: null, restored: true });
    expect(await untilNoProcesses()).toEqual([]);
  });

  it("gives the terminal back also when the command line crashes", async () => {
    const crash = "process.on('SIGUSR2', () => { throw new Error('crashed as asked'); });";
    const terminal = await openShell([], {
      env: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(crash)}` },
    });
    terminal.signal("SIGUSR2");
    expect(await terminal.result()).toMatchObject({ exitCode: 1, restored: true });
    // What crashed could not hang up.
    for (const { pid } of await processes()) await cli().run(["kill", "-s", "HUP", api().sandbox.id, String(pid)]);
  });

  it("with a tag outlives us, and is there again with what it showed", async () => {
    const terminal = await openShell(["--tag", "work"]);
    await enter(terminal, "MARK=still-''here; echo $MARK", "still-here");
    // The other screen and no cursor, as an editor leaves them when it is left in the middle.
    terminal.type("printf '\\033[?1049h\\033[?25l'; echo edi''ting\r");
    await terminal.untilShown("editing");
    const from = terminal.shown.length;
    terminal.type("\u001D\u001D");
    expect(await terminal.result()).toEqual({ exitCode: 0, signal: null, restored: true });
    expect(terminal.shown.slice(from)).toContain("\u001B[?1049l\u001B[?25h");
    expect(terminal.shown.slice(from)).toContain("come back with: wrenn shell --tag work");
    expect(await processes()).toMatchObject([{ tag: "work" }]);

    const again = cli().terminal(["shell", "--tag", "work", api().sandbox.id], { cols: 90, rows: 20 });
    await again.untilShown("editing");
    await enter(again, "echo $MARK $(stty size)", "still-here 20 90");
    again.type("exit 3\r");
    expect(await again.result()).toMatchObject({ exitCode: 3, restored: true });
    expect(await untilNoProcesses()).toEqual([]);
  });

  it("takes Ctrl-] for itself when it has no tag", async () => {
    const terminal = await openShell();
    await enter(terminal, 'read -rsn2 keys; printf %s "$keys" | od -An -tx1\r\u001D\u001D', "1d 1d");
    terminal.type("exit\r");
    expect(await terminal.result()).toMatchObject({ exitCode: 0 });
  });

  it("needs a terminal, and says what needs none", async () => {
    const result = await cli().run(["shell", api().sandbox.id]);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toContain("wrenn exec");
  });
});
