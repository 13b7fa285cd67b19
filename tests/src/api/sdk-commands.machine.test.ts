import { getEventListeners } from "node:events";
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { countProcesses, useSdk } from "../harness/sdk.ts";

const sdk = useSdk();

/** Bytes of all values, many times over. */
const anyBytes = Uint8Array.from({ length: 300_000 }, (_byte, at) => (at * 7 + (at >> 8)) % 256);

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

describe("a command that is run", () => {
  test("resolves with its exit code and output, whatever the code", async () => {
    expect(await sdk().box.commands.run("echo out; echo err >&2; exit 3")).toMatchObject({
      exitCode: 3,
      exited: true,
      timedOut: false,
      oomKilled: false,
      stdout: "out\n",
      stderr: "err\n",
      stdoutTruncated: false,
      outputIncomplete: false,
    });
  });

  test("as a text has a login shell, as a list none", async () => {
    const { commands } = sdk().box;
    expect((await commands.run("shopt -q login_shell && echo $((6 * 7)) | tr 4 5")).stdout).toBe("52\n");
    expect((await commands.run(["printf", "%s|", "$HOME", "; rm x", 'a"b'])).stdout).toBe('$HOME|; rm x|a"b|');
  });

  test("gets variables, directory and user", async () => {
    const options = { envs: { GREETING: "grüß dich" }, cwd: "/tmp", user: "root" };
    expect((await sdk().box.commands.run('echo "$GREETING $PWD $(whoami)"', options)).stdout).toBe(
      "grüß dich /tmp root\n",
    );
  });

  test("reads end of file when it is given nothing", async () => {
    expect((await sdk().box.commands.run(["cat"])).exitCode).toBe(0);
  });

  test("reads any bytes and writes them back", async () => {
    const { stdoutBytes } = await sdk().box.commands.run(["cat"], { stdin: anyBytes });
    expect(sha256(stdoutBytes)).toBe(sha256(anyBytes));
  });

  test("reads a text", async () => {
    expect((await sdk().box.commands.run(["tr", "a-z", "A-Z"], { stdin: "wrenn ü" })).stdout).toBe("WRENN ü");
  });

  test("reads a stream no faster than it wants, and what it does not want is let go", async () => {
    let given = 0;
    let cancelled = false;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        given += 65_536;
        controller.enqueue(new Uint8Array(65_536));
      },
      cancel: () => void (cancelled = true),
    });
    const { stdout } = await sdk().box.commands.run(["head", "-c", "5"], { stdin: endless });
    expect(stdout).toHaveLength(5);
    expect(cancelled).toBe(true);
    expect(given).toBeLessThan(4_000_000);
  });

  test("whose input breaks off is killed, and the reason is told", async () => {
    const reason = new Error("the source is gone");
    let pieces = 0;
    const breaking = new ReadableStream<Uint8Array>({
      pull(controller) {
        pieces += 1;
        if (pieces > 2) controller.error(reason);
        else controller.enqueue(new TextEncoder().encode("some"));
      },
    });
    await expect(sdk().box.commands.run("cat; sleep 7401", { stdin: breaking })).rejects.toBe(reason);
    await expect.poll(() => countProcesses("sleep 7401")).toBe(0);
  });

  test("hands its output on while it runs, and waits for who listens", async () => {
    const seen: string[] = [];
    const output = await sdk().box.commands.run("for n in 1 2 3; do echo $n; sleep 0.05; done; echo ü >&2", {
      onStdout: async (_bytes, text) => {
        await delay(20);
        seen.push(`out ${text}`);
      },
      onStderr: (_bytes, text) => void seen.push(`err ${text}`),
    });
    expect(seen.filter((piece) => piece.startsWith("out")).length).toBeGreaterThan(0);
    expect(seen.join("").replaceAll(/out |err /g, "")).toBe("1\n2\n3\nü\n");
    expect(output).toMatchObject({ stdout: "1\n2\n3\n", stderr: "ü\n" });
  });

  test("hands on whole characters, however they are cut", async () => {
    const text = "añ→😀".repeat(3);
    const script = `import sys, time\nfor b in ${JSON.stringify(text)}.encode():\n sys.stdout.buffer.write(bytes([b])); sys.stdout.flush(); time.sleep(0.005)`;
    const pieces: string[] = [];
    const { stdout } = await sdk().box.commands.run(["python3", "-c", script], {
      onStdout: (_bytes, piece) => void pieces.push(piece),
    });
    expect(stdout).toBe(text);
    expect(pieces.join("")).toBe(text);
    expect(pieces.length).toBeGreaterThan(3);
  });

  test("that prints without end is held back by who listens, not kept in memory", async () => {
    let seen = 0;
    const stop = new AbortController();
    const running = sdk().box.commands.run(["head", "-c", "300M", "/dev/zero"], {
      onStdout: async (bytes) => {
        seen += bytes.byteLength;
        // Stops reading for a while in the middle.
        if (seen > 50_000_000 && seen < 50_100_000) await delay(200);
      },
      maxOutputBytes: 1_000,
      signal: stop.signal,
    });
    const output = await running;
    expect(seen).toBe(300 * 1_048_576);
    expect(output.stdoutBytes).toHaveLength(1_000);
    expect(output).toMatchObject({ exitCode: 0, stdoutTruncated: true, stderrTruncated: false });
  });

  test("is killed with its children when its time is up, and says so", async () => {
    const output = await sdk().box.commands.run("echo begun; sleep 7402 & sleep 7402", { timeoutMs: 400 });
    expect(output).toMatchObject({ timedOut: true, exited: false, exitCode: 137, stdout: "begun\n" });
    await expect.poll(() => countProcesses("sleep 7402")).toBe(0);
  });

  test("that cannot start says why", async () => {
    const { commands } = sdk().box;
    await expect(commands.run(["no-such-program"])).rejects.toMatchObject({
      name: "CommandError",
      code: "command_not_found",
      status: 404,
      retryable: false,
    });
    await expect(commands.run(["/etc/passwd"])).rejects.toMatchObject({ code: "command_not_executable" });
    await expect(commands.run(["true"], { cwd: "/nowhere" })).rejects.toMatchObject({
      name: "GuestError",
      code: "guest_refused",
    });
    await expect(commands.run(["true"], { user: "nobody-known" })).rejects.toMatchObject({ code: "guest_refused" });
    await expect(commands.run([])).rejects.toMatchObject({ name: "InvalidRequestError" });
  });

  test("whose listener fails is killed, and that failure is told", async () => {
    const reason = new Error("the disk here is full");
    const onStdout = (): void => {
      throw reason;
    };
    await expect(sdk().box.commands.run("echo x; sleep 7403", { onStdout })).rejects.toBe(reason);
    await expect.poll(() => countProcesses("sleep 7403")).toBe(0);
  });
});

describe("an abort", () => {
  // From before the request is on its way to when the command runs and prints.
  test.each([0, 1, 2, 5, 10, 20, 40, 80, 160])(
    "of a run after %i ms leaves no process and no listener",
    async (milliseconds) => {
      const stop = new AbortController();
      const reason = new Error("enough");
      const mark = `sleep 75${milliseconds}.5`;
      const running = sdk().box.commands.run(`while echo x; do ${mark} & sleep 0.001; done`, { signal: stop.signal });
      setTimeout(() => stop.abort(reason), milliseconds);
      await expect(running).rejects.toBe(reason);
      await expect.poll(() => sdk().box.commands.list()).toEqual([]);
      await expect.poll(() => countProcesses(mark)).toBe(0);
      expect(getEventListeners(stop.signal, "abort")).toEqual([]);
    },
  );

  test("ends a run whose listener never returns", async () => {
    const stop = new AbortController();
    const running = sdk().box.commands.run("echo x; sleep 7404", {
      onStdout: async () => {
        stop.abort();
        await new Promise(() => undefined);
      },
      signal: stop.signal,
    });
    await expect(running).rejects.toMatchObject({ name: "AbortError" });
    await expect.poll(() => countProcesses("sleep 7404")).toBe(0);
  });

  test("of a command in the background stops following it, and it goes on", async () => {
    const stop = new AbortController();
    const { commands } = sdk().box;
    const command = await commands.start("sleep 7405", { signal: stop.signal });
    stop.abort();
    await expect(command.wait()).rejects.toMatchObject({ name: "AbortError" });
    expect((await commands.list()).map(({ pid }) => pid)).toEqual([command.pid]);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  });
});

describe("a command in the background", () => {
  test("is listed, found by tag, written to and ended", async () => {
    const { commands } = sdk().box;
    const seen: string[] = [];
    const command = await commands.start(["cat"], {
      tag: "the-cat",
      stdin: true,
      cwd: "/tmp",
      onStdout: (_bytes, text) => void seen.push(text),
    });
    expect(await commands.list()).toEqual([{ pid: command.pid, tag: "the-cat", cmd: "cat", args: [], cwd: "/tmp" }]);
    const joined: string[] = [];
    const other = await commands.connect("the-cat", { onStdout: (_bytes, text) => void joined.push(text) });
    expect(other.pid).toBe(command.pid);
    const words = Array.from({ length: 50 }, (_word, at) => `word ${at}\n`);
    await Promise.all(words.map((word) => command.sendStdin(word)));
    await command.closeStdin();
    expect(await command.wait()).toEqual({ exitCode: 0, exited: true, timedOut: false, oomKilled: false });
    await other.wait();
    expect(seen.join("")).toBe(words.join(""));
    expect(joined.join("")).toBe(words.join(""));
  });

  test("shows who joins what it printed last, when that is wanted", async () => {
    const { commands } = sdk().box;
    const command = await commands.start("echo one; read; echo two", { stdin: true });
    const early: string[] = [];
    const joined = await commands.connect(command.pid, {
      replay: true,
      onStdout: (_bytes, text) => void early.push(text),
    });
    await expect.poll(() => early.join("")).toBe("one\n");
    const late: string[] = [];
    const other = await commands.connect(command.pid, { onStdout: (_bytes, text) => void late.push(text) });
    await command.sendStdin("\n");
    await joined.wait();
    await other.wait();
    expect(early.join("")).toBe("one\ntwo\n");
    expect(late.join("")).toBe("two\n");
  });

  test("is signalled, and says what ended it", async () => {
    const { commands } = sdk().box;
    const seen: string[] = [];
    const command = await commands.start("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", {
      onStdout: (_bytes, text) => void seen.push(text),
    });
    await expect.poll(() => seen.join("")).toBe("ready\n");
    expect(await command.kill("SIGTERM")).toBe(true);
    expect(await command.wait()).toMatchObject({ exitCode: 7, exited: true });
    const other = await commands.start("sleep 7406");
    expect(await commands.kill(other.pid)).toBe(true);
    expect(await other.wait()).toMatchObject({ exitCode: 137, exited: false });
  });

  test("that is not there is told from one that is", async () => {
    const { commands } = sdk().box;
    expect(await commands.kill(4_000_000)).toBe(false);
    expect(await commands.kill("no-such-tag", "SIGINT")).toBe(false);
    await expect(commands.connect("no-such-tag")).rejects.toMatchObject({
      name: "CommandError",
      code: "process_not_found",
    });
    const ended = await commands.start("exit 5");
    await ended.wait();
    expect(await ended.kill()).toBe(false);
    await expect(ended.sendStdin("x")).rejects.toMatchObject({ code: "process_not_found" });
    // Its end is remembered for a while.
    expect(await (await commands.connect(ended.pid)).wait()).toMatchObject({ exitCode: 5 });
  });

  test("without an input says so", async () => {
    const command = await sdk().box.commands.start("sleep 7407");
    await expect(command.sendStdin("x")).rejects.toMatchObject({ code: "guest_refused" });
  });
});
