/** What a program does with a sandbox by the SDK, on a real VM. */
import { createHash } from "node:crypto";
import { Sandbox, WrennError } from "@wrenn/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { useServer } from "./harness/use-server.ts";

const server = useServer();
let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await server().createSandbox({ metadata: { of: "the SDK's test" } });
});
afterAll(async () => {
  await sandbox.destroy();
});

describe("a program", () => {
  it("runs code in a sandbox that is gone at the end of the block", async () => {
    let id = "";
    {
      await using other = await server().createSandbox({ memoryMib: 256 });
      ({ id } = other);
      expect(await other.commands.run("python3 -c 'print(6 * 7)'")).toMatchObject({ stdout: "42\n", exitCode: 0 });
    }
    expect(await server().sandboxIds()).not.toContain(id);
  });

  it("finds its sandboxes by what it has written on them", async () => {
    const found = [];
    const options = { ...(await server().api()), metadata: { of: "the SDK's test" } };
    for await (const { id } of Sandbox.list(options)) found.push(id);
    expect(found).toEqual([sandbox.id]);
  });

  it("moves a large file in and out, and computes with it there", async () => {
    const piece = new Uint8Array(1_048_576).map((_byte, at) => (at * 13) % 251);
    const count = 64;
    const hash = createHash("sha256");
    for (let at = 0; at < count; at += 1) hash.update(piece);
    const expected = hash.digest("hex");
    let given = 0;
    const source = new ReadableStream<Uint8Array>({
      pull(controller) {
        given += 1;
        if (given > count) controller.close();
        else controller.enqueue(piece);
      },
    });
    expect(await sandbox.files.write("data/large", source)).toMatchObject({ size: count * piece.byteLength });
    expect((await sandbox.commands.run(["sha256sum", "data/large"])).stdout).toContain(expected);
    const received = createHash("sha256");
    const reader = (await sandbox.files.readStream("data/large")).getReader();
    for (let next = await reader.read(); !next.done; next = await reader.read()) received.update(next.value);
    expect(received.digest("hex")).toBe(expected);
  });

  it("types into a terminal and watches what comes of it", async () => {
    await sandbox.files.makeDirectory("inbox");
    const changes: string[] = [];
    const watch = await sandbox.files.watch("inbox", ({ name }) => void changes.push(name));
    const terminal = await sandbox.pty.create({ cols: 80, rows: 24 });
    await terminal.sendInput("echo hello > inbox/letter; exit 3\n");
    expect((await terminal.wait()).exitCode).toBe(3);
    await expect.poll(() => changes).toContain("letter");
    watch.stop();
    expect(await sandbox.files.read("inbox/letter")).toBe("hello\n");
  });

  it("reaches a server that it has started, on the sandbox's loopback", async () => {
    const served = await sandbox.commands.start("cd inbox && python3 -m http.server --bind 127.0.0.1 8000");
    const letter = async (): Promise<string> => (await sandbox.fetch(8000, "/letter")).text();
    await expect.poll(async () => letter().catch(() => "nothing yet")).toBe("hello\n");
    expect(await served.kill("SIGINT")).toBe(true);
    await served.wait();
    await expect(sandbox.fetch(8000, "/letter")).rejects.toMatchObject({ code: "port_closed" });
  });

  it("sees what the sandbox uses and what its kernel has printed", async () => {
    const { memoryTotalBytes, cpuCount } = await sandbox.metrics();
    expect(cpuCount).toBe(1);
    expect(memoryTotalBytes).toBeGreaterThan(300 * 1_048_576);
    await sandbox.commands.run("echo '<1>told by the kernel' > /dev/kmsg", { user: "root" });
    await expect.poll(async () => (await sandbox.console()).text).toMatch(/\[ +\d+\.\d+\] told by the kernel/);
  });

  it("that follows a command learns that its sandbox has been destroyed", async () => {
    const doomed = await server().createSandbox({ memoryMib: 256 });
    let begun = false;
    const running = doomed.commands.run("echo begun; sleep 600", { onStdout: () => void (begun = true) });
    const watch = await doomed.files.watch("/tmp", () => undefined);
    const outcome = running.catch((error: unknown) => error);
    const watched = watch.closed.catch((error: unknown) => error);
    await expect.poll(() => begun).toBe(true);
    await doomed.destroy();
    expect(await outcome).toMatchObject({ name: "SandboxNotFoundError" });
    expect(await watched).toBeInstanceOf(WrennError);
  });
});
