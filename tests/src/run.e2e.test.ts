import { randomBytes } from "node:crypto";
import { cliEntry } from "@wrenn/cli";
import { sandboxLimits } from "@wrenn/contract";
import { runUnchecked } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { useServer } from "./harness/use-server.ts";

const server = useServer();

function run(args: readonly string[], options: { input?: Buffer | string; env?: NodeJS.ProcessEnv } = {}) {
  return server().cli(["run", ...args], options);
}

describe("run", () => {
  it("prints the command's output and exits with its code", async () => {
    const result = await run(["--", "python3", "-c", "print('hello from a microVM'); raise SystemExit(7)"]);
    expect(result.stdout.toString()).toBe("hello from a microVM\n");
    expect(result.stderr).toBe("");
    expect(result.exitCode).toBe(7);
    expect(await server().sandboxIds()).toEqual([]);
  });

  it("runs the command in a machine of its own", async () => {
    const result = await run([
      "--memory",
      "256M",
      "--vcpus",
      "2",
      "--disk",
      "7G",
      "--",
      "sh",
      "-c",
      "uname -r; nproc; id -un; free -m | awk '/Mem:/ {print $2}'; df -m --output=size / | tail -1",
    ]);
    const [kernel, processors, user, memoryMib, diskMib] = result.stdout.toString().split("\n");
    expect(kernel).toMatch(/cloud-amd64$/);
    expect(processors).toBe("2");
    expect(user).toBe("user");
    // What the kernel and the file system keep for themselves is missing.
    expect(Number(memoryMib)).toBeGreaterThan(150);
    expect(Number(memoryMib)).toBeLessThan(256);
    expect(Number(diskMib)).toBeGreaterThan(6 * 1024);
    expect(Number(diskMib)).toBeLessThan(7 * 1024);
  });

  it("finds the programs of the template minimal, and becomes root without a password", async () => {
    const programs = "bash python3 git curl sudo ip ps tput getfattr ls";
    const script = `for p in ${programs}; do command -v $p >/dev/null || echo no $p; done; sudo -n id -un; locale charmap`;
    const result = await run(["--", "sh", "-c", script]);
    expect(result.stdout.toString()).toBe("root\nUTF-8\n");
  });

  it("hands a megabyte of any bytes through the command's input and output unchanged", async () => {
    const input = randomBytes(1_048_576);
    const result = await run(["--", "cat"], { input });
    expect(result.exitCode).toBe(0);
    expect(result.stdout.equals(input)).toBe(true);
  });

  it("hands the last bytes to a reader that is slow", async () => {
    // Somewhat more than a pipe holds: the rest is so little that it waits in the process without holding anything up.
    const script = '"$0" "$1" run -- head -c 75000 /dev/zero | (sleep 8; wc -c)';
    const { stdout } = await runUnchecked("sh", ["-c", script, process.execPath, cliEntry], { env: server().env });
    expect(stdout.trim()).toBe("75000");
  });

  it("keeps standard error apart from standard output", async () => {
    const result = await run(["--", "sh", "-c", "echo out; echo err >&2"]);
    expect(result.stdout.toString()).toBe("out\n");
    expect(result.stderr).toBe("err\n");
  });

  it("sets variables, user and directory", async () => {
    const result = await run(
      [
        "-e",
        "A=1 and =",
        "-e",
        "B",
        "-e",
        "C",
        "-u",
        "root",
        "-w",
        "/etc",
        "sh",
        "-c",
        'echo "$A|$B|${C-unset}|$(id -un)|$PWD"',
      ],
      { env: { B: "from outside" } },
    );
    expect(result.stdout.toString()).toBe("1 and =|from outside|unset|root|/etc\n");
  });

  it("stops the command with all its processes when its time is over, and exits with 124", async () => {
    const result = await run(["--timeout", "2s", "--", "sh", "-c", "echo begun; sleep 1000 & sleep 1000"]);
    expect(result.stdout.toString()).toBe("begun\n");
    expect(result.stderr).toContain("stopped after 2.0 s (--timeout)");
    expect(result.exitCode).toBe(124);
  });

  it("exits as a shell does when a signal ends the command", async () => {
    const result = await run(["--", "sh", "-c", "kill -SEGV $$"]);
    expect(result.exitCode).toBe(128 + 11);
  });

  it("exits with 127 for a program that is not there", async () => {
    const result = await run(["--", "no-such-program"]);
    expect(result.exitCode).toBe(127);
    expect(result.stderr).toContain("no-such-program");
    expect(result.stderr).toContain("(command_not_found)");
  });

  it("exits with 126 for a program that cannot be executed", async () => {
    const result = await run(["--", "/etc/passwd"]);
    expect(result.exitCode).toBe(126);
    expect(result.stderr).toContain("(command_not_executable)");
  });

  it("with a terminal, the command has one", async () => {
    const result = await run(["-t", "--", "sh", "-c", "test -t 0 && test -t 1 && stty size"]);
    expect(result.stdout.toString()).toBe("24 80\r\n");
  });

  it("with --json prints one object with everything", async () => {
    const result = await run(["--json", "--", "sh", "-c", "echo out; echo err >&2; exit 4"]);
    expect(result.exitCode).toBe(4);
    expect(result.stderr).toBe("");
    expect(JSON.parse(result.stdout.toString())).toMatchObject({
      sandbox_id: expect.stringMatching(/^sb-[0-9a-f-]{36}$/) as string,
      exit_code: 4,
      exited: true,
      timed_out: false,
      oom_killed: false,
      output_incomplete: false,
      stdout: "out\n",
      stderr: "err\n",
    });
  });

  it("with --json prints all of an object that is larger than a pipe", async () => {
    const script = '"$0" "$1" run --json -- head -c 200000 /dev/zero | (sleep 8; cat)';
    const { stdout } = await runUnchecked("sh", ["-c", script, process.execPath, cliEntry], { env: server().env });
    expect(JSON.parse(stdout)).toMatchObject({ exit_code: 0, stdout: "\0".repeat(200_000) });
  });

  it("refuses sizes that no sandbox can have, names the range, and exits with 125", async () => {
    const result = await run(["--json", "--memory", "1M", "--", "true"]);
    expect(result.exitCode).toBe(125);
    expect(JSON.parse(result.stdout.toString())).toMatchObject({ error: { code: "invalid_request" } });
    expect(result.stdout.toString()).toContain("memory_mib");
  });

  it("explains itself when it is used wrongly", async () => {
    const result = await run(["--timeout", "soon", "--", "true"]);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toContain("Give a duration such as 30s");
  });
});

describe("run --keep", () => {
  it("leaves the sandbox, says how to remove it, and rm does", async () => {
    const kept = await run(["--keep", "--", "true"]);
    const id = /wrenn rm (sb-\S+)/.exec(kept.stderr)?.[1] ?? "";
    expect(await server().sandboxIds()).toEqual([id]);
    const listed = await server().cli(["ls"]);
    expect(listed.stdout.toString()).toContain(id);
    const removed = await server().cli(["rm", id]);
    expect(removed).toMatchObject({ exitCode: 0 });
    expect(await server().sandboxIds()).toEqual([]);
  });
});

describe("rm", () => {
  it("says which ids there are not, and which are none", async () => {
    const missing = "sb-01890000-0000-7000-8000-000000000000";
    const result = await server().cli(["rm", "--json", missing, "tpl-nonsense"]);
    expect(result.exitCode).toBe(1);
    expect(JSON.parse(result.stdout.toString())).toMatchObject({
      destroyed: [],
      failed: [
        { id: missing, error: { code: "sandbox_not_found" } },
        { id: "tpl-nonsense", error: { code: "invalid_id" } },
      ],
    });
  });
});

describe("the API", () => {
  it("refuses names that could be paths, and templates that are not there", async () => {
    for (const template of ["../minimal", "a/b", "", ".hidden", "x".repeat(65)]) {
      await expect(server().createSandbox({ template })).rejects.toMatchObject({ code: "invalid_name" });
    }
    await expect(server().createSandbox({ template: "no-such-template" })).rejects.toMatchObject({
      code: "template_not_found",
    });
  });

  it("refuses sizes outside the limits, on either side", async () => {
    const { vcpus, memoryMib, diskMib } = sandboxLimits;
    const refused = [
      { vcpus: vcpus.min - 1 },
      { vcpus: vcpus.max + 1 },
      { memoryMib: memoryMib.min - 1 },
      { memoryMib: memoryMib.max + 1 },
      { diskMib: diskMib.min - 1 },
      { diskMib: diskMib.max + 1 },
    ];
    for (const sizes of refused) {
      await expect(server().createSandbox(sizes)).rejects.toMatchObject({ code: "invalid_request" });
    }
    expect(await server().sandboxIds()).toEqual([]);
  });
});

describe("a wrong key", () => {
  it("is refused with what to do", async () => {
    const env = { WRENN_API_URL: server().url, WRENN_API_KEY: `wrn_${"0".repeat(40)}` };
    const result = await server().cli(["ls"], { env });
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("(unauthorized)");
  });
});
