/** Frozen states and the machines of hosts: what was made by one engine is started by no other, and whoever asks is told what is missing. */
import path from "node:path";
import { newId, platformTeamId } from "@wrenn/contract";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SimulatedHostAgent } from "../testing/simulated-host-agent.ts";
import type { SimulatedMachine } from "../testing/simulated-sandboxes.ts";
import { eventually, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

const emulated: SimulatedMachine = {
  engine: "qemu-tcg",
  engineVersion: "7.2.22",
  engineReason: "Software emulation was chosen.",
  cpu: "max",
  diskFormat: "qcow2",
};

const others = {
  engine: "firecracker",
  engineVersion: "8.0.0",
  cpu: "another processor",
  diskFormat: "dm-snapshot",
} as const satisfies Partial<SimulatedMachine>;

type Part = keyof typeof others;

/** What the error must name, by what the host has otherwise. */
const named: Readonly<Record<Part, string>> = {
  engine: "runs qemu-tcg, which",
  engineVersion: "has qemu-tcg 7.2.22, which",
  cpu: "has the processor max, which",
  diskFormat: "has disks in the format qcow2, which",
};

/** The host is another one from now on, and the server knows. */
async function become(machine: SimulatedMachine): Promise<void> {
  server().agent.machine = machine;
  await eventually(async () => {
    const rows = await server().query(
      "SELECT FROM hosts WHERE name = 'local' AND (engine, engine_version, cpu, disk_format) = ($1, $2, $3, $4)",
      [machine.engine, machine.engineVersion, machine.cpu, machine.diskFormat],
    );
    if (rows.length === 0) throw new Error("the host's machine has not been written down yet");
  });
}

async function lose(part: Part): Promise<void> {
  await become({ ...emulated, [part]: others[part] });
}

beforeEach(async () => become(emulated));

async function act(id: string, verb: string, body: Record<string, unknown> = {}): Promise<Answer> {
  return server().post(`/v1/sandboxes/${id}/${verb}`, body);
}

function errorOf({ status, body }: Answer): { status: number; code: unknown; message: string; details: unknown } {
  const { error } = body as unknown as { error: { code: string; message: string; details?: unknown } };
  return { status, code: error.code, message: error.message, details: error.details };
}

const refused = (part: Part): object => ({
  status: 409,
  code: "snapshot_incompatible",
  message: expect.stringContaining(named[part]),
});

describe.each(["engine", "engineVersion", "cpu", "diskFormat"] as const)("where the host has another %s", (part) => {
  test("a snapshot is not started, nothing is reserved for it, and it is started when the host has that again", async () => {
    const { id } = await server().create();
    const name = `of-${part}`;
    expect((await server().post("/v1/snapshots", { sandbox_id: id, name })).status).toBe(201);
    await lose(part);
    const asked = server().agent.creates.length;
    const rows = async (): Promise<number> => (await server().query("SELECT FROM sandboxes")).length;
    const before = await rows();
    const answer = errorOf(await server().post("/v1/sandboxes", { template: name }));
    expect(answer).toMatchObject(refused(part));
    expect(answer.details).toMatchObject({
      needed: { engine: "qemu-tcg", engine_version: "7.2.22", cpu: "max", disk_format: "qcow2" },
      hosts: [{ host_id: expect.stringMatching(/^host-/), different: [expect.any(String)] }],
    });
    expect(server().agent.creates).toHaveLength(asked);
    expect(await rows()).toBe(before);
    expect((await server().post("/v1/sandboxes", {})).status).toBe(201);
    await become(emulated);
    expect((await server().post("/v1/sandboxes", { template: name })).status).toBe(201);
  });

  test("a paused sandbox stays paused, and is resumed when the host has that again", async () => {
    const { id, uuid } = await server().create();
    await act(id, "pause");
    await lose(part);
    expect(errorOf(await act(id, "resume"))).toMatchObject(refused(part));
    expect(await server().statusOf(uuid)).toBe("paused");
    expect(server().agent.resumes.some(({ sandboxId }) => sandboxId === uuid)).toBe(false);
    await become(emulated);
    expect((await act(id, "resume")).status).toBe(200);
  });

  test.each(["running", "paused"])("a %s sandbox is not copied, and stays as it is", async (status) => {
    const { id, uuid } = await server().create();
    if (status === "paused") await act(id, "pause");
    await lose(part);
    expect(errorOf(await act(id, "fork", { count: 2 }))).toMatchObject(refused(part));
    expect(await server().statusOf(uuid)).toBe(status);
    expect(server().agent.forks.some(({ sandboxId }) => sandboxId === uuid)).toBe(false);
  });

  test("what has died is not brought back to its last pause", async () => {
    const { id, uuid } = await server().create();
    server().agent.kill(uuid, "vm_died", "the engine is gone", ["disk", "last_pause"]);
    await eventually(async () => expect(await server().statusOf(uuid)).toBe("error"));
    await lose(part);
    expect(errorOf(await act(id, "recover", { from: "last_pause" }))).toMatchObject(refused(part));
    expect((await server().call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
      status: "error",
      recoverable: ["disk", "last_pause"],
    });
  });
});

test("what has died boots from its disk on whatever runs there now, if that can open the disk", async () => {
  const { id, uuid } = await server().create();
  server().agent.kill(uuid, "vm_died", "the engine is gone");
  await eventually(async () => expect(await server().statusOf(uuid)).toBe("error"));
  await lose("diskFormat");
  expect(errorOf(await act(id, "recover", { from: "disk" }))).toMatchObject(refused("diskFormat"));
  await become({ ...emulated, engine: "qemu-kvm", engineReason: "KVM works.", cpu: "a real one" });
  expect((await act(id, "recover", { from: "disk" })).body).toMatchObject({
    status: "running",
    engine: "qemu-kvm",
    engine_reason: "KVM works.",
  });
  const columns = await server().query("SELECT engine, cpu FROM sandboxes WHERE id = $1", [uuid]);
  expect(columns).toEqual([{ engine: "qemu-kvm", cpu: "a real one" }]);
});

test("what was frozen with one format of disks is started where that can still be used, whatever new disks are", async () => {
  const { id } = await server().create();
  await act(id, "pause");
  server().agent.diskFormats = ["qcow2", "dm-snapshot"];
  try {
    await lose("diskFormat");
    expect((await act(id, "resume")).status).toBe(200);
  } finally {
    server().agent.diskFormats = undefined;
  }
});

test("what nobody has written down is for the host to decide", async () => {
  const { id, uuid } = await server().create();
  await act(id, "pause");
  await server().query("UPDATE sandboxes SET engine_version = NULL, cpu = NULL, disk_format = NULL WHERE id = $1", [
    uuid,
  ]);
  await become({ ...emulated, engineVersion: "8.0.0", cpu: "another processor" });
  expect((await act(id, "resume")).status).toBe(200);
});

describe("of two hosts", () => {
  const secondId = newId("host");
  let second: SimulatedHostAgent;

  beforeEach(async () => {
    const socket = path.join(server().directory, "second.sock");
    second = await SimulatedHostAgent.start(socket);
    Object.assign(second, { cpuCount: 64, memoryMib: 524_288 });
    second.machine = { ...emulated, engine: "firecracker", engineVersion: "1.10.1" };
    await server().query(
      `INSERT INTO hosts (id, name, type, team_id, address, status) VALUES ($1, 'second', 'regular', $2, $3, 'unreachable')
       ON CONFLICT (id) DO NOTHING`,
      [secondId, platformTeamId, `unix:${socket}`],
    );
    await eventually(async () => {
      const rows = await server().query("SELECT FROM hosts WHERE engine = 'firecracker' AND status = 'online'");
      if (rows.length === 0) throw new Error("the second host has not been seen yet");
    });
  });

  afterEach(async () => {
    await second.stop();
  });

  test("a snapshot is started on the one that has it, however empty the other is; that one's are its own", async () => {
    const onSecond = await server().create();
    expect(second.sandboxes.has(onSecond.uuid)).toBe(true);
    await server().post("/v1/snapshots", { sandbox_id: onSecond.id, name: "of-second" });
    const created = await server().post("/v1/sandboxes", { template: "of-second" });
    expect(created.body).toMatchObject({ engine: "firecracker", host_id: `host-${secondId}` });
    // Another that runs the same engine does not have it: the one that has it now runs another.
    second.machine = emulated;
    await become({ ...second.machine, engine: "firecracker", engineVersion: "1.10.1" });
    await eventually(async () => {
      const answer = errorOf(await server().post("/v1/sandboxes", { template: "of-second" }));
      expect(answer).toMatchObject({
        status: 409,
        code: "snapshot_incompatible",
        message:
          "No host that is online and holds the snapshot runs firecracker, which the snapshot was made with. Its host has qemu-tcg.",
      });
    });
    // Whether it could be started is not known while its host is away.
    await second.pause();
    await eventually(async () => {
      const answer = errorOf(await server().post("/v1/sandboxes", { template: "of-second" }));
      expect(answer).toMatchObject({ status: 503, code: "host_unavailable" });
    });
  });
});

test("an operator sees what each host runs and why; nobody else does", async () => {
  const replica = await server().startReplica();
  const { key } = await replica.apiKeys.create(platformTeamId, "operator");
  const { status, body } = await server().call("GET", "/v1/hosts", { key });
  expect(status).toBe(200);
  const { hosts } = body as unknown as { hosts: { name: string }[] };
  expect(hosts.find(({ name }) => name === "local")).toMatchObject({
    id: expect.stringMatching(/^host-/),
    status: "online",
    engine: "qemu-tcg",
    engine_version: "7.2.22",
    engine_reason: "Software emulation was chosen.",
    cpu: "max",
    disk_format: "qcow2",
    disk_reason: "This machine is simulated.",
    memory_backends: ["file", "uffd"],
  });
  expect(errorOf(await server().call("GET", "/v1/hosts"))).toMatchObject({ status: 403, code: "forbidden" });
});
