import { describe, expect, test } from "vitest";
import { countProcesses, useSdk } from "../harness/sdk.ts";

const sdk = useSdk();

/** What a terminal shows. */
function screen(): { onData: (bytes: Uint8Array) => void; text: () => string } {
  const decoder = new TextDecoder();
  let shown = "";
  return { onData: (bytes) => void (shown += decoder.decode(bytes, { stream: true })), text: () => shown };
}

const size = { cols: 80, rows: 24 };

describe("a terminal", () => {
  test("is a login shell, typed into, resized, and ends with its exit code", async () => {
    const { onData, text } = screen();
    const terminal = await sdk().box.pty.create({ ...size, onData, envs: { PS1: "> " } });
    await terminal.sendInput("tty; stty size; echo $TERM\n");
    await expect.poll(text).toMatch(/\/dev\/pts\/\d+\r\n24 80\r\nxterm-256color/);
    await terminal.resize(100, 40);
    await terminal.sendInput("stty size; exit 9\n");
    expect(await terminal.wait()).toMatchObject({ exitCode: 9, exited: true });
    expect(text()).toContain("40 100");
    expect(await terminal.kill()).toBe(false);
    await expect(terminal.resize(80, 24)).rejects.toMatchObject({ code: "process_not_found" });
  });

  test("runs a program of choice, as a user, in a directory", async () => {
    const { onData, text } = screen();
    const options = { ...size, onData, cmd: "sh", args: ["-c", "pwd; whoami; echo $A"] };
    const terminal = await sdk().box.pty.create({ ...options, cwd: "/tmp", user: "root", envs: { A: "b" } });
    await terminal.wait();
    expect(text()).toBe("/tmp\r\nroot\r\nb\r\n");
  });

  test("gets keystrokes in their order, however quickly they come", async () => {
    const { onData, text } = screen();
    const terminal = await sdk().box.pty.create({
      ...size,
      onData,
      cmd: "sh",
      args: ["-c", "stty raw -echo; echo ready; head -c 600 | md5sum"],
    });
    await expect.poll(text).toContain("ready");
    const keys = Array.from({ length: 600 }, (_key, at) => String.fromCharCode(97 + (at % 26)));
    await Promise.all(keys.map((key) => terminal.sendInput(key)));
    await terminal.wait();
    const { stdout } = await sdk().box.commands.run(["md5sum"], { stdin: keys.join("") });
    expect(text()).toContain(stdout.trim());
  });

  test("is joined by its tag, with what it showed last, and typed into by both", async () => {
    const first = screen();
    const terminal = await sdk().box.pty.create({ ...size, tag: "shared", onData: first.onData, cmd: "cat" });
    await terminal.sendInput("from the first\n");
    await expect.poll(first.text).toContain("from the first\r\nfrom the first");
    const second = screen();
    const joined = await sdk().box.pty.connect("shared", { onData: second.onData });
    expect([joined.pid, joined.tag]).toEqual([terminal.pid, "shared"]);
    await expect.poll(second.text).toContain("from the first\r\nfrom the first");
    const third = screen();
    const fresh = await sdk().box.pty.connect(terminal.pid, { onData: third.onData, replay: false });
    await joined.sendInput("from the second\n");
    for (const { text } of [first, second, third])
      await expect.poll(text).toContain("from the second\r\nfrom the second");
    expect(third.text()).not.toContain("from the first");
    expect(await joined.kill()).toBe(true);
    for (const handle of [terminal, joined, fresh]) expect(await handle.wait()).toMatchObject({ exitCode: 137 });
  });

  test("that is no longer followed goes on until it is ended", async () => {
    const stop = new AbortController();
    const options = { ...size, tag: "left", cmd: "sleep", args: ["7601"], signal: stop.signal };
    const terminal = await sdk().box.pty.create(options);
    stop.abort();
    await expect(terminal.wait()).rejects.toMatchObject({ name: "AbortError" });
    expect(await countProcesses("sleep 7601")).toBeGreaterThan(0);
    expect(await sdk().box.commands.kill("left")).toBe(true);
    await expect.poll(() => countProcesses("sleep 7601")).toBe(0);
  });

  test("that cannot start, or is not there, says why", async () => {
    const { pty } = sdk().box;
    await expect(pty.create({ ...size, cmd: "no-such-shell" })).rejects.toMatchObject({ code: "command_not_found" });
    await expect(pty.connect("no-such-terminal")).rejects.toMatchObject({ code: "process_not_found" });
    await expect(pty.create({ ...size, signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
  });

  test("reports its program's any bytes as they are", async () => {
    const seen: number[] = [];
    const bytes = [...Array(256).keys()].filter((byte) => byte !== 10);
    const script = `stty raw; python3 -c "import os; os.write(1, bytes(b for b in range(256) if b != 10))"`;
    const terminal = await sdk().box.pty.create({
      ...size,
      cmd: "sh",
      args: ["-c", script],
      onData: (piece) => void seen.push(...piece),
    });
    await terminal.wait();
    expect(seen).toEqual(bytes);
  });
});
