import { randomBytes } from "node:crypto";
import { cliEntry } from "@wrenn/cli";
import { pollUntil, runUnchecked } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";
import type { CliProcess } from "../harness/cli.ts";

const api = useApiServer();
const cli = useCli(api);

const id = (): string => api().sandbox.id;

function exec(args: readonly string[], options: Parameters<ReturnType<typeof cli>["run"]>[1] = {}) {
  return cli().run(["exec", ...args], options);
}

async function untilNoProcesses(): Promise<unknown> {
  const list = async (): Promise<unknown[]> => {
    const { stdout } = await cli().run(["ps", "--json", id()]);
    return (JSON.parse(stdout.toString()) as { processes: unknown[] }).processes;
  };
  await pollUntil(async () => ((await list()).length === 0 ? true : null), { timeoutMs: 20_000, intervalMs: 100 });
  return list();
}

/** Starts a command and waits until it has said that it is there. */
async function begin(script: string): Promise<CliProcess> {
  const command = cli().spawn(["exec", id(), "--", "sh", "-c", `echo ready; ${script}`]);
  await command.untilWritten("ready");
  return command;
}

describe("exec", () => {
  it("hands on both outputs and exits with the command's code", async () => {
    const result = await exec([id(), "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    expect(result).toMatchObject({ exitCode: 7, stderr: "err\n" });
    expect(result.stdout.toString()).toBe("out\n");
  });

  it.each([
    ["the command's own", ["--", "sh", "-c", "exit 255"], 255, ""],
    ["that of a signal", ["--", "sh", "-c", "kill -KILL $$"], 137, ""],
    ["124 when time is over", ["--", "sleep", "1000"], 124, "stopped after 0.5 s (--timeout)"],
    ["126 for what cannot be executed", ["--", "/etc/passwd"], 126, "(command_not_executable)"],
    ["127 for what is not there", ["--", "no-such-program"], 127, "(command_not_found)"],
    ["125 for a user that is not there", ["--", "true"], 125, "(guest_refused)"],
  ])("has exit code %s", async (what, command, exitCode, said) => {
    const options = what.includes("time") ? ["--timeout", "500ms"] : what.includes("user") ? ["-u", "nobody-here"] : [];
    const result = await exec([...options, id(), ...command]);
    expect(result.exitCode).toBe(exitCode);
    expect(result.stderr).toContain(said);
  });

  it("hands any bytes through input and output unchanged", async () => {
    const input = randomBytes(3 * 1_048_576 + 1);
    const result = await exec([id(), "--", "cat"], { input });
    expect(result.exitCode).toBe(0);
    expect(result.stdout.equals(input)).toBe(true);
  });

  it("ends the command's input when ours ends", async () => {
    expect((await exec([id(), "--", "wc", "-c"], { input: "12345" })).stdout.toString()).toBe("5\n");
    expect((await exec([id(), "--", "wc", "-c"])).stdout.toString()).toBe("0\n");
  });

  it("sets variables, user and directory, and leaves the rest of the line to the command", async () => {
    const options = ["-e", "A=1 and =", "-e", "B", "-u", "root", "-w", "/etc"];
    const script = 'echo "$A|$B|$(id -un)|$PWD|$*"';
    const result = await exec([...options, id(), "sh", "-c", script, "sh", "--json", "-u", "x"], {
      env: { B: "from outside" },
    });
    expect(result.stdout.toString()).toBe("1 and =|from outside|root|/etc|--json -u x\n");
  });

  it("takes the end of an id, and any beginning that says enough", async () => {
    expect((await exec([id().slice(-6), "--", "echo", "here"])).stdout.toString()).toBe("here\n");
    expect((await exec([id().slice(0, 12), "--", "echo", "here"])).stdout.toString()).toBe("here\n");
  });

  it("with --json prints one object with everything", async () => {
    const result = await exec(["--json", id(), "--", "sh", "-c", "printf 'gr\\303\\274n'; printf x >&2; exit 4"]);
    expect(result).toMatchObject({ exitCode: 4, stderr: "" });
    expect(JSON.parse(result.stdout.toString())).toEqual({
      sandbox_id: id(),
      exit_code: 4,
      exited: true,
      timed_out: false,
      oom_killed: false,
      stdout: "grün",
      stdout_bytes_left_out: 0,
      stderr: "x",
      stderr_bytes_left_out: 0,
      output_incomplete: false,
    });
  });

  it("hands Ctrl-C to the command, whose end is ours", async () => {
    const command = await begin("trap 'echo interrupted; exit 9' INT; sleep 1000 & wait");
    command.child.kill("SIGINT");
    const result = await command.result();
    expect(result.stdout.toString()).toBe("ready\ninterrupted\n");
    expect(result.exitCode).toBe(9);
  });

  it("ends as a command that SIGTERM ends", async () => {
    const command = await begin("exec sleep 1000");
    command.child.kill("SIGTERM");
    expect((await command.result()).exitCode).toBe(143);
  });

  it("ends a command that ignores Ctrl-C at the second one", async () => {
    const command = await begin("trap 'echo ignored' INT; while :; do sleep 0.1; done");
    command.child.kill("SIGINT");
    await command.untilWritten("ignored");
    command.child.kill("SIGINT");
    expect((await command.result()).exitCode).toBe(130);
    expect(await untilNoProcesses()).toEqual([]);
  });

  it("ends a command whose output nobody reads any more", async () => {
    const script = '"$0" "$1" exec "$2" -- yes | head -n 1';
    const { stdout } = await runUnchecked("sh", ["-c", script, process.execPath, cliEntry, id()], { env: cli().env });
    expect(stdout).toBe("y\n");
    expect(await untilNoProcesses()).toEqual([]);
  });

  it("gives the command a terminal that is as large as ours", async () => {
    const terminal = cli().terminal(
      ["exec", "-t", id(), "--", "sh", "-c", "test -t 0; stty size; echo $TERM; exit 3"],
      {
        cols: 133,
        rows: 41,
      },
    );
    expect(await terminal.result()).toEqual({ exitCode: 3, signal: null, restored: true });
    expect(terminal.shown).toBe("41 133\r\nxterm-256color\r\n");
  });

  it("-d leaves the command running and prints its pid, for ps and kill", async () => {
    const started = await exec(["-d", id(), "--", "sleep", "1000"]);
    expect(started).toMatchObject({ exitCode: 0, stderr: "" });
    const pid = started.stdout.toString().trim();
    const listed = await cli().run(["ps", id()]);
    expect(listed.stdout.toString()).toMatch(new RegExp(`^PID +TAG +COMMAND\n${pid} +sleep 1000\n$`));
    expect(await cli().run(["kill", "-s", "term", id(), pid])).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await untilNoProcesses()).toEqual([]);
    const again = await cli().run(["kill", id(), pid]);
    expect(again.exitCode).toBe(1);
    expect(again.stderr).toContain("(process_not_found)");
  });

  it("-d --json, ps --json and kill --json print objects", async () => {
    const started = JSON.parse((await exec(["-d", "--json", id(), "sleep", "1000"])).stdout.toString()) as {
      pid: number;
    };
    expect(started).toEqual({ sandbox_id: id(), pid: expect.any(Number) as number });
    const listed = await cli().run(["ps", "--json", id()]);
    expect(JSON.parse(listed.stdout.toString())).toEqual({
      processes: [{ pid: started.pid, tag: null, cmd: "sleep", args: ["1000"], cwd: null }],
    });
    const killed = await cli().run(["kill", "--json", "--signal", "9", id(), String(started.pid)]);
    expect(JSON.parse(killed.stdout.toString())).toEqual({ pid: started.pid, signal: "SIGKILL" });
  });
});

describe("exec used wrongly", () => {
  it.each([
    [["-t"], "missing required argument"],
    [["0123456789", "-t", "--", "bash"], "-t has to stand before the sandbox"],
    [["0123456789", "--"], "missing required argument 'command'"],
    [["-d", "-t", "0123456789", "bash"], "cannot be used with"],
  ])("%j says what to do and exits with 125", async (args, said) => {
    const result = await exec(args);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toContain(said);
  });

  it("names a sandbox that is not there, and exits with 125", async () => {
    for (const missing of ["sb-01890000-0000-7000-8000-000000000000", "ffffffff"]) {
      const result = await exec([missing, "--", "true"]);
      expect(result.exitCode).toBe(125);
      expect(result.stderr).toContain("(sandbox_not_found)");
    }
  });

  it("says that the server is away, and exits with 125", async () => {
    const result = await exec([id(), "--", "true"], { env: { WRENN_API_URL: "http://127.0.0.1:1" } });
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toContain("(server_unreachable)");
  });
});
