/** A VM whose engine misbehaves, or whose host is short of something: a process that is not QEMU, and a scripted control socket. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { newId } from "@wrenn/contract";
import {
  identifyProcess,
  pollUntil,
  type ProcessIdentity,
  type SandboxLayout,
  signalProcess,
  startDaemon,
  wrennLayout,
} from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { deferred } from "../../deferred.ts";
import { serveQmp } from "./testing/scripted-qmp.ts";
import { QemuVm } from "./vm.ts";

let root: string;
let files: SandboxLayout;
let engine: ProcessIdentity;
let server: Server;
let vm: QemuVm | null;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-vm-"));
  const layout = wrennLayout(root).sandbox(newId("sandbox"));
  files = { ...layout, qmpSocket: path.join(root, "qmp.sock"), consoleLog: path.join(root, "console.log") };
  const { pid } = await startDaemon("sleep", ["60"], { logFile: "/dev/null" });
  const identity = await identifyProcess(pid);
  if (identity === null) throw new Error("sleep ended at once");
  engine = identity;
  server = createServer();
  vm = null;
});

afterEach(async () => {
  await vm?.detach();
  await signalProcess(engine, "SIGKILL");
  server.close();
  await rm(root, { recursive: true });
});

const answers = (socket: Socket, id: number, status: string): void => {
  socket.write(`{"return": {"status": "${status}"}, "id": ${id}}\r\n`);
};

it("asks one question at a time, however many events an engine sends, and never misses the last", async () => {
  let status = "running";
  let asked = 0;
  let open: { id: number; socket: Socket } | null = null;
  await serveQmp(server, files.qmpSocket, (command, id, socket) => {
    if (command !== "query-status") return;
    asked++;
    if (asked === 1) answers(socket, id, status);
    else open = { id, socket };
    // Those after the first are answered when the test says so.
    if (asked === 1) for (let sent = 0; sent < 1_000; sent++) socket.write(`{"event": "STOP"}\r\n`);
  });
  vm = await QemuVm.connect(engine, files);
  await pollUntil(() => Promise.resolve(asked >= 2 ? true : null), { timeoutMs: 2_000 });
  await delay(100);
  expect(asked).toBe(2);
  const answerOpen = (): void => {
    if (open !== null) answers(open.socket, open.id, status);
  };
  answerOpen();
  status = "guest-panicked";
  await pollUntil(() => Promise.resolve(asked >= 3 ? true : null), { timeoutMs: 2_000 });
  answerOpen();
  await expect(vm.ended).resolves.toMatchObject({ code: "guest_panicked" });
  expect(asked).toBe(3);
});

it("does not ask an engine that is freezing, whose disk may be slow, and does not take the guest for ended", async () => {
  const asked: string[] = [];
  const late = deferred<() => void>();
  await serveQmp(server, files.qmpSocket, (command, id, socket) => {
    asked.push(command);
    const answer = (): void => answers(socket, id, asked.includes("stop") ? "paused" : "running");
    if (command !== "stop") {
      answer();
      return;
    }
    socket.write(`{"event": "STOP"}\r\n`);
    late.resolve(answer);
  });
  vm = await QemuVm.connect(engine, files);
  const freezing = Promise.all([vm.freeze(), vm.freeze()]);
  const answerStop = await late.promise;
  // Two round trips: the first answer comes after the event, and a question that this brought about comes before the second.
  await vm.isFrozen();
  await vm.isFrozen();
  expect(asked).toEqual(["query-status", "stop", "query-status", "query-status"]);
  answerStop();
  await freezing;
  expect(asked).toContain("xen-save-devices-state");
  await expect(vm.isFrozen()).resolves.toBe(true);
});

it("outlives a host without a free file descriptor, and still notices the end", async () => {
  await serveQmp(server, files.qmpSocket, (command, id, socket) => {
    if (command === "query-status") answers(socket, id, "running");
  });
  vm = await QemuVm.connect(engine, files);
  let ended = false;
  void vm.ended.then(() => (ended = true));
  const inUse = (await readdir("/proc/self/fd")).length;
  // The limit is raised again by a process that was started while there were descriptors to start it with.
  const shortage = `prlimit --pid $0 --nofile=$1: && sleep 2.5 && prlimit --pid $0 --nofile=$2:`;
  const limit = /^Max open files\s+(\d+)/m.exec(await readFile("/proc/self/limits", "utf8"))?.[1] ?? "1024";
  const { exited } = await startDaemon("sh", ["-c", shortage, String(process.pid), String(inUse - 8), limit], {
    logFile: "/dev/null",
  });
  await delay(1_000);
  await expect(readdir("/proc/self/fd")).rejects.toMatchObject({ code: "EMFILE" });
  await expect(exited).resolves.toBe(0);
  expect(ended).toBe(false);
  await signalProcess(engine, "SIGKILL");
  await expect(vm.ended).resolves.toMatchObject({ code: "vm_died" });
});
