import { constants } from "node:fs";
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { newId } from "@wrenn/contract";
import {
  identifyProcess,
  type ProcessIdentity,
  run,
  type SandboxLayout,
  signalProcess,
  startDaemon,
  wrennLayout,
} from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { inJail } from "./machine.ts";
import { type ScriptedAnswer, serveApi } from "./testing/scripted-api.ts";
import { FirecrackerVm } from "./vm.ts";

const id = newId("sandbox");

let directory: string;
let files: SandboxLayout;
let root: string;
let engine: ProcessIdentity;
let server: Server | null;
let vm: FirecrackerVm | null;

/** The types of snapshots that were asked for. */
let asked: unknown[];

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-fc-"));
  files = wrennLayout(directory).sandbox(id);
  root = path.join(files.jail.directory, "firecracker", id, "root");
  await mkdir(root, { recursive: true });
  await run("mkfifo", [files.jail.console, files.jail.log]);
  const { pid } = await startDaemon("sh", ["-c", "kill -STOP $$"], { logFile: "/dev/null" });
  const identity = await identifyProcess(pid);
  if (identity === null) throw new Error("it ended at once");
  engine = identity;
  server = null;
  vm = null;
  asked = [];
});

afterEach(async () => {
  await vm?.detach();
  server?.close();
  await signalProcess(engine, "SIGKILL");
  await rm(directory, { recursive: true });
});

/** Answers as Firecracker does, but for what `exception` answers. */
async function adopt(exception?: ScriptedAnswer): Promise<FirecrackerVm> {
  server ??= await serveApi(files.jail.apiSocket, (request, respond) => {
    if (request.what === "GET /") {
      respond(200, { id, state: "Paused", vmm_version: "1.16.1", app_name: "Firecracker" });
      return;
    }
    if (exception !== undefined) {
      exception(request, respond);
      return;
    }
    void writeAndAnswer(request.body, () => {
      respond(204);
    });
  });
  vm = await FirecrackerVm.adopt(engine, files, id);
  return vm;
}

async function writeAndAnswer(body: Readonly<Record<string, unknown>>, answer: () => void): Promise<void> {
  asked.push(body["snapshot_type"]);
  await writeFile(path.join(root, inJail.writtenMemory), "memory");
  await writeFile(path.join(root, inJail.writtenDevices), "devices");
  answer();
}

it("writes only changes while it is known what they are changes of, and else all of memory", async () => {
  const first = await adopt();
  const [one, two, three, four] = [0, 1, 2, 3].map(() => newId("generation")) as [never, never, never, never];
  await first.writeState({ parent: null, id: one });
  await expect(readFile(files.jail.writtenMemory, "utf8")).resolves.toBe("memory");
  await expect(readFile(files.deviceState, "utf8")).resolves.toBe("devices");
  // It was published, and is what the VM runs on from.
  await first.writeState({ parent: one, id: two });
  // That was not.
  await first.writeState({ parent: one, id: three });
  await first.detach();
  // Nor that, before the host agent ended.
  const second = await adopt();
  await second.writeState({ parent: one, id: four });
  await second.writeState({ parent: four, id: newId("generation") });
  expect(asked).toEqual(["Diff", "Diff", "Full", "Full", "Diff"]);
});

it("leaves nothing of a state that could not be written, and writes all of memory the next time", async () => {
  const fault = { fault_message: "Cannot write the memory file." };
  let refusing = true;
  const failing = await adopt(({ body }, respond) => {
    void writeAndAnswer(body, () => {
      if (refusing) respond(400, fault);
      else respond(204);
    });
  });
  await expect(failing.writeState({ parent: null, id: newId("generation") })).rejects.toMatchObject({
    code: "engine_failed",
    message: expect.stringContaining(fault.fault_message) as string,
  });
  expect(await readdir(root)).toEqual([]);
  expect(await readdir(files.directory)).toEqual(["jail"]);
  refusing = false;
  await failing.writeState({ parent: null, id: newId("generation") });
  expect(asked).toEqual(["Diff", "Full"]);
});

it("is not taken over when it says that it runs another sandbox", async () => {
  await adopt();
  const other = FirecrackerVm.adopt(engine, files, newId("sandbox"));
  await expect(other).rejects.toMatchObject({ code: "engine_failed" });
});

it.each([
  { printed: "Kernel panic - not syncing: VFS: Unable to mount\n", log: "exit_code=0\n", code: "guest_panicked" },
  { printed: "bye\n", log: "Firecracker exiting successfully. exit_code=0\n", code: "guest_powered_off" },
  { printed: "bye\n", log: "Shutting down VM after intercepting signal\n", code: "vm_died" },
])("tells by its last words that it is $code", async ({ printed, log, code }) => {
  const adopted = await adopt();
  for (const [pipe, words] of [
    [files.jail.console, printed],
    [files.jail.log, log],
  ] as const) {
    const handle = await open(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    await handle.write(words);
    await handle.close();
  }
  await signalProcess(engine, "SIGKILL");
  await expect(adopted.ended).resolves.toMatchObject({ code, consoleTail: printed.trim() });
});
