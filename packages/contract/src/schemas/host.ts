/** Hosts as the public API shows them, to operators. */
import { z } from "zod";
import { memoryBackends } from "./sandbox.ts";

const exampleHost = {
  id: "host-0199a1b0-7777-7888-8999-aaaabbbbcccc",
  name: "local",
  status: "online",
  vcpus: 8,
  memory_mib: 32_000,
  agent_version: "0.1.0",
  engine: "qemu-kvm",
  engine_version: "7.2.22",
  engine_reason: "KVM works: a guest kernel booted in it.",
  cpu: "AMD EPYC 9354 (AuthenticAMD/25/17/1)",
  disk_format: "qcow2",
  disk_reason: "The kernel has no device-mapper.",
  disk_formats: ["qcow2"],
  memory_backends: ["file", "uffd"],
  last_seen_at: "2026-01-31T12:00:00.000Z",
} as const;

export const hostSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    status: z.enum(["online", "unreachable"]),
    vcpus: z.number().int().describe("Processors that it has."),
    memory_mib: z.number().int().describe("Memory that it has, in MiB."),
    agent_version: z
      .string()
      .nullable()
      .describe("Of its host agent; null until that has answered for the first time."),
    engine: z
      .string()
      .nullable()
      .describe(
        "What it starts sandboxes with: `firecracker`, `qemu-kvm` or `qemu-tcg`; null while there is none that works.",
      ),
    engine_version: z.string().nullable(),
    engine_reason: z.string().nullable().describe("Why it has chosen that engine, or has none."),
    cpu: z.string().nullable().describe("The processor that guests find."),
    disk_format: z.string().nullable().describe("How it keeps the disks of new sandboxes: `qcow2` or `dm-snapshot`."),
    disk_reason: z.string().nullable().describe("Why it keeps them like that."),
    disk_formats: z.array(z.string()).describe("All that it can use, those of older sandboxes among them."),
    memory_backends: z.array(z.enum(memoryBackends)).describe("The ways in which frozen memory can come back there."),
    last_seen_at: z.iso.datetime().nullable(),
  })
  .meta({ id: "Host", description: "A machine that runs sandboxes.", examples: [exampleHost] });
export type Host = z.infer<typeof hostSchema>;

export const listHostsSchema = z
  .object({ hosts: z.array(hostSchema) })
  .meta({ id: "Hosts", description: "All hosts." });
