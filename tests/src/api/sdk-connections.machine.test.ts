import { truncate } from "node:fs/promises";
import { Sandbox } from "@wrenn/sdk";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CuttingProxy } from "../harness/cutting-proxy.ts";
import { countProcesses, useSdk } from "../harness/sdk.ts";

const sdk = useSdk();
let proxy: CuttingProxy;
let box: Sandbox;

beforeAll(async () => {
  proxy = await CuttingProxy.start(sdk().server.url);
  box = await Sandbox.connect(sdk().box.id, { ...sdk().options, apiUrl: proxy.url });
});
afterAll(async () => {
  await proxy.stop();
});
beforeEach(() => {
  proxy.cutAfterBytes = Number.POSITIVE_INFINITY;
  proxy.pieceBytes = Number.POSITIVE_INFINITY;
});

describe("when the connection is cut", () => {
  test("a command that runs is joined again, keeps its exit code, and says that output may be missing", async () => {
    let cuts = 0;
    const output = await box.commands.run("echo begun; sleep 0.5; echo done; exit 6", {
      onStdout: (_bytes, text) => {
        if (text.includes("begun") && cuts === 0) {
          cuts += 1;
          // Behind this event, so that what came before it has been delivered.
          setTimeout(() => proxy.cut(), 10);
        }
      },
    });
    expect(output).toMatchObject({ exitCode: 6, outputIncomplete: true });
    expect(output.stdout.startsWith("begun\n")).toBe(true);
  });

  test("again and again, a command is still followed to its end", async () => {
    let reconnects = 0;
    const command = await box.commands.start("until [ -e enough ]; do echo x; sleep 0.1; done; exit 7", {
      onStdout: () => {
        if (reconnects < 4) proxy.cut();
      },
      onReconnect: () => void (reconnects += 1),
    });
    await expect.poll(() => reconnects).toBe(4);
    await sdk().box.files.write("enough", "");
    expect((await command.wait()).exitCode).toBe(7);
    await sdk().box.files.remove("enough");
  });

  test("a terminal is joined again", async () => {
    let shown = "";
    let reconnects = 0;
    const terminal = await box.pty.create({
      cols: 80,
      rows: 24,
      cmd: "cat",
      onData: (bytes) => void (shown += new TextDecoder().decode(bytes)),
      onReconnect: () => void (reconnects += 1),
    });
    proxy.cut();
    await expect.poll(() => reconnects).toBeGreaterThan(0);
    await terminal.sendInput("still here\n");
    await expect.poll(() => shown).toContain("still here");
    await terminal.kill();
    await terminal.wait();
  });

  test("before there is an answer, what may be asked twice is asked again", async () => {
    await box.files.write("kept", "content");
    proxy.cut();
    const reading = Promise.all([box.files.read("kept"), box.files.stat("kept"), box.commands.list(), box.refresh()]);
    proxy.cut();
    expect((await reading)[0]).toBe("content");
  });

  test("in the middle of a file, what has been read of it is not taken for the whole", async () => {
    await box.files.write("large", "");
    await truncate(sdk().guest.outside("/home/user/large"), 50_000_000);
    proxy.cut();
    proxy.cutAfterBytes = 3_000_000;
    let seen = 0;
    const reading = (async () => {
      const reader = (await box.files.readStream("large")).getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) seen += next.value.byteLength;
    })();
    await expect(reading).rejects.toMatchObject({ name: "ConnectionError", code: "connection_lost", retryable: true });
    expect(seen).toBeLessThan(3_000_000);
  });

  test("in the middle of an upload, it is an error and nothing of the file is there", async () => {
    let given = 0;
    const source = new ReadableStream<Uint8Array>({
      pull(controller) {
        given += 1;
        if (given === 50) proxy.cut();
        if (given > 100) controller.close();
        else controller.enqueue(new Uint8Array(65_536));
      },
    });
    await expect(box.files.write("partial", source)).rejects.toMatchObject({
      name: "ConnectionError",
      retryable: true,
    });
    expect(await box.files.exists("partial")).toBe(false);
  });

  test("a watch says that changes may have been missed", async () => {
    await box.files.makeDirectory("watched");
    const watch = await box.files.watch("watched", () => undefined);
    proxy.cut();
    await expect(watch.closed).rejects.toMatchObject({ name: "ConnectionError", code: "connection_lost" });
  });

  test("while a command is being started, it is not started a second time", async () => {
    await box.refresh();
    proxy.cutAfterBytes = 1;
    const before = proxy.connections;
    await expect(box.commands.run("sleep 7701")).rejects.toMatchObject({ name: "ConnectionError" });
    expect(proxy.connections - before).toBeLessThanOrEqual(1);
    expect(await countProcesses("sleep 7701")).toBeLessThanOrEqual(1);
  });

  test("for a create, it is made once", async () => {
    const before = [];
    for await (const { id } of Sandbox.list(sdk().options)) before.push(id);
    proxy.cut();
    proxy.cutAfterBytes = 1;
    setTimeout(() => (proxy.cutAfterBytes = Number.POSITIVE_INFINITY), 50);
    const created = await Sandbox.create({ ...sdk().options, apiUrl: proxy.url, maxRetries: 10 });
    const after = [];
    for await (const { id } of Sandbox.list(sdk().options)) after.push(id);
    expect(after).toEqual([created.id, ...before]);
    await created.destroy();
  });
});

describe("a connection that delivers byte by byte", () => {
  test("changes nothing of what is delivered", async () => {
    const text = "añ→😀\n".repeat(20);
    await box.files.write("text", text);
    proxy.pieceBytes = 1;
    const pieces: string[] = [];
    const output = await box.commands.run("cat text; echo ü >&2", {
      onStdout: (_bytes, piece) => void pieces.push(piece),
    });
    expect(output).toMatchObject({ stdout: text, stderr: "ü\n", exitCode: 0 });
    expect(pieces.join("")).toBe(text);
    expect(await box.files.read("text")).toBe(text);
    expect((await box.files.list(".")).some(({ name }) => name === "text")).toBe(true);
  });
});

describe("calls one after another", () => {
  test("share a connection, whatever they are answered and however much of it is read", async () => {
    const before = proxy.connections;
    for (let round = 0; round < 20; round += 1) {
      await box.commands.run("echo x >&2; exit 1");
      await box.commands.run(["no-such-program"]).catch(() => undefined);
      await box.files.read("no-such-file").catch(() => undefined);
      await box.files.read("text").catch(() => undefined);
      await box.files.exists("no-such-file");
      await box.files.list("no-such-directory").catch(() => undefined);
      await box.commands.connect(4_000_000).catch(() => undefined);
      await box.fetch(9, "/").catch(() => undefined);
      await Sandbox.connect("sb-1", { ...sdk().options, apiUrl: proxy.url }).catch(() => undefined);
    }
    // Some are answered before what came ahead of them has been put back.
    expect(proxy.connections - before).toBeLessThan(10);
  });
});

describe("when the server is gone", () => {
  test("what follows a command says so after a while, and the command is as it was", async () => {
    const other = await CuttingProxy.start(sdk().server.url);
    const away = await Sandbox.connect(sdk().box.id, { ...sdk().options, apiUrl: other.url });
    const stop = new AbortController();
    const command = await away.commands.start("sleep 7702", { signal: stop.signal });
    await other.stop();
    await expect(away.files.read("text")).rejects.toMatchObject({
      name: "ConnectionError",
      code: "server_unreachable",
    });
    await expect(away.commands.run("true")).rejects.toMatchObject({ code: "server_unreachable" });
    stop.abort();
    await expect(command.wait()).rejects.toMatchObject({ name: "AbortError" });
    expect(await countProcesses("sleep 7702")).toBe(1);
  });
});
