/** Creations that a host cannot or must not carry out: each has its code, and leaves nothing. */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { ConnectError } from "@connectrpc/connect";
import { hostAgentProto, newId } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { afterEach, expect, it } from "vitest";
import { failureOf } from "../testing/failure.ts";
import { type PrepareOptions, TestHostAgent } from "../testing/host-agent-process.ts";

const nothing = { engines: [], directories: [], cgroups: [] };

let agent: TestHostAgent | null = null;

afterEach(async () => {
  await agent?.remove();
  agent = null;
});

async function start(environment: NodeJS.ProcessEnv = {}, options: PrepareOptions = {}): Promise<TestHostAgent> {
  agent = await TestHostAgent.prepare(environment, options);
  await agent.start();
  return agent;
}

it("refuses bad ids, sizes and templates", async () => {
  const { client, request, traces } = bound(await start());
  const created = (overrides: Parameters<typeof request>[0]): Promise<string> =>
    failureOf(client.createSandbox(request(overrides)));
  await expect(created({ sandboxId: "../../etc" })).resolves.toBe("invalid_id");
  await expect(created({ sandboxId: `sb-${newId("sandbox")}` })).resolves.toBe("invalid_id");
  await expect(created({ templateId: "..%2f" })).resolves.toBe("invalid_id");
  await expect(created({ templateTeamId: newId("team"), templateId: newId("template") })).resolves.toBe(
    "template_not_found",
  );
  await expect(created({ vcpus: 0 })).resolves.toBe("invalid_request");
  await expect(created({ vcpus: 33 })).resolves.toBe("invalid_request");
  await expect(created({ memoryMib: 127 })).resolves.toBe("invalid_request");
  await expect(created({ diskMib: 5_119 })).resolves.toBe("invalid_request");
  await expect(created({ accessToken: "" })).resolves.toBe("invalid_request");
  await expect(created({ envs: { LONG: "x".repeat(131_072) } })).resolves.toBe("invalid_request");
  const sandboxId = newId("sandbox");
  await expect(failureOf(client.getSandbox({ sandboxId }))).resolves.toBe("sandbox_not_found");
  await expect(failureOf(client.destroySandbox({ sandboxId }))).resolves.toBe("sandbox_not_found");
  await expect(failureOf(client.destroySandbox({ sandboxId: "../x" }))).resolves.toBe("invalid_id");
  expect(await traces()).toMatchObject(nothing);
});

it("refuses what does not fit into the host's memory", async ({ skip }) => {
  const { client, request, traces } = bound(await start());
  const { memoryAvailableMib } = await client.getHost({});
  if (memoryAvailableMib > 60_000) skip("this host has room for the largest sandbox there can be");
  const memoryMib = memoryAvailableMib - 100;
  await expect(failureOf(client.createSandbox(request({ memoryMib })))).resolves.toBe("host_out_of_memory");
  expect(await traces()).toMatchObject(nothing);
});

it("refuses when the disk is all but full", async () => {
  agent = await TestHostAgent.prepare();
  const { layout } = agent;
  await mkdir(layout.sandboxes);
  await run("mount", ["-t", "tmpfs", "-o", "size=16m,mode=711", "tmpfs", layout.sandboxes]);
  try {
    await agent.start();
    const { client, request } = bound(agent);
    await expect(failureOf(client.createSandbox(request()))).resolves.toBe("host_out_of_disk");
    expect(await agent.traces()).toMatchObject(nothing);
  } finally {
    await agent.signal("SIGTERM");
    await run("umount", [layout.sandboxes]);
  }
});

it("serves without QEMU, and says what is missing", async () => {
  const { client, request } = bound(await start({ WRENN_QEMU_BIN: "/nowhere/qemu" }));
  const host = await client.getHost({});
  expect(host).toMatchObject({ engine: "", engineVersion: "" });
  expect(host.engineReason).toContain("Install QEMU");
  await expect(failureOf(client.createSandbox(request()))).resolves.toBe("engine_missing");
});

it("serves without the engine that is demanded, starts nothing with another, and says why", async () => {
  const programs = { WRENN_FIRECRACKER_BIN: "/nowhere/firecracker", WRENN_JAILER_BIN: "/nowhere/jailer" };
  const { client, request, traces } = bound(await start({ WRENN_ENGINE: "firecracker", ...programs }));
  const host = await client.getHost({});
  expect(host).toMatchObject({ engine: "", cpu: "" });
  expect(host.engineReason).toMatch(
    /^WRENN_ENGINE=firecracker, which cannot run here. WRENN_FIRECRACKER_BIN names \/nowhere/,
  );
  await expect(failureOf(client.createSandbox(request()))).resolves.toBe("engine_unavailable");
  expect(await traces()).toMatchObject(nothing);
});

it("says that QEMU is too old", async () => {
  agent = await TestHostAgent.prepare({ WRENN_QEMU_BIN: "/tmp/wrenn-test-old-qemu" });
  // Not a QEMU, but a program that says it is one of 2017: this machine has no old one.
  const program = path.join("/tmp", "wrenn-test-old-qemu");
  await writeFile(program, "#!/bin/sh\necho 'QEMU emulator version 2.11.0'\n");
  await chmod(program, 0o755);
  try {
    await agent.start();
    const { client, request } = bound(agent);
    await expect(failureOf(client.createSandbox(request()))).resolves.toBe("engine_too_old");
  } finally {
    await run("rm", ["-f", program]);
  }
});

it("says that nothing has been built to boot from", async () => {
  const { client, request, traces } = bound(await start({}, { boot: "missing" }));
  await expect(failureOf(client.createSandbox(request()))).resolves.toBe("boot_files_missing");
  expect(await traces()).toMatchObject(nothing);
});

it("fails with the engine's words when it cannot start, and leaves nothing", async () => {
  agent = await TestHostAgent.prepare({ WRENN_QEMU_BIN: "/tmp/wrenn-test-broken-qemu" });
  const program = "/tmp/wrenn-test-broken-qemu";
  await writeFile(
    program,
    "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'QEMU emulator version 9.0.0'\necho 'out of luck' >&2\nexit 1\n",
  );
  await chmod(program, 0o755);
  try {
    await agent.start();
    const { client, request } = bound(agent);
    await expect(failureOf(client.createSandbox(request()))).resolves.toBe("engine_failed");
    await expect(client.createSandbox(request())).rejects.toThrow("out of luck");
    expect(await agent.traces()).toMatchObject(nothing);
  } finally {
    await run("rm", ["-f", program]);
  }
});

it("reports a guest that panics while it boots at once, with what its console said", async () => {
  agent = await TestHostAgent.prepare({}, { boot: "panics" });
  await agent.start();
  const { client, request } = bound(agent);
  const creating = client.createSandbox(request());
  const error = ConnectError.from(await creating.catch((thrown: unknown) => thrown));
  const [info] = error.findDetails(hostAgentProto.ErrorInfoSchema);
  expect(info).toMatchObject({ code: "guest_panicked" });
  expect(info?.detailsJson).toContain("Kernel panic - not syncing");
  expect(await agent.traces()).toMatchObject(nothing);
});

it("names the variable of its environment that is wrong", async () => {
  agent = await TestHostAgent.prepare({ WRENN_ENGINE: "vmware" });
  await expect(agent.start()).rejects.toThrow("WRENN_ENGINE");
});

function bound(agent: TestHostAgent) {
  return { client: agent.client, request: agent.request.bind(agent), traces: agent.traces.bind(agent) };
}
