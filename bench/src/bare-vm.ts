/**
 * The yardstick: QEMU started by hand with the kernel, disk and guest agent that Wrenn uses, and nothing else. No jail, no limits, no
 * namespace, no journal. One at a time, because its tap lies in the host's own namespace.
 */
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { guestNetwork, minimalTemplateId, platformTeamId } from "@wrenn/contract";
import { bootManifestSchema, baseTemplateSchema } from "@wrenn/contract";
import { endProcess, identifyProcess, type Layout, readJson, run, startDaemon } from "@wrenn/system";

const tap = "wrenn-bare";

export interface BareVm {
  readonly address: string;
  stop(): Promise<void>;
}

/** The tap that bare VMs use, until `close`. Made once, outside what is measured: Wrenn's slots are made ahead too. */
export async function openBareNetwork(): Promise<{ close(): Promise<void> }> {
  await run("ip", ["-batch", "-"], {
    input: [
      `tuntap add ${tap} mode tap`,
      `link set ${tap} address ${guestNetwork.gatewayMac} up`,
      `address add ${guestNetwork.gateway}/${guestNetwork.prefixLength} dev ${tap}`,
    ].join("\n"),
  });
  return {
    close: async () => {
      await run("ip", ["link", "delete", tap]);
    },
  };
}

/** Starts a VM and returns as soon as QEMU has been started; the caller waits for the guest. */
export async function startBareVm(layout: Layout, options: { memoryMib: number; tscKhz: number }): Promise<BareVm> {
  const boot = bootManifestSchema.parse(await readJson(layout.bootManifest));
  const template = layout.template(platformTeamId, minimalTemplateId);
  const manifest = baseTemplateSchema.parse(await readJson(template.manifest));
  const directory = await mkdtemp(path.join(os.tmpdir(), "wrenn-bare-"));
  const overlay = path.join(directory, "overlay.qcow2");
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", template.rootfs(manifest.rootfs), overlay]);
  const { pid } = await startDaemon(
    "qemu-system-x86_64",
    [
      ...["-M", "microvm,accel=tcg", "-cpu", "max", "-m", `${options.memoryMib}`, "-smp", "1"],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-serial", `file:${path.join(directory, "console")}`],
      ...["-kernel", path.join(layout.boot, boot.kernel), "-initrd", path.join(layout.boot, boot.initramfs)],
      ...[
        "-append",
        `console=ttyS0 reboot=t panic=-1 quiet random.trust_cpu=on tsc_early_khz=${options.tscKhz} tsc=reliable`,
      ],
      ...["-drive", `id=root,file=${overlay},format=qcow2,if=none,cache=writeback`],
      ...["-device", "virtio-blk-device,drive=root"],
      ...["-netdev", `tap,id=net,ifname=${tap},script=no,downscript=no`],
      ...["-device", `virtio-net-device,netdev=net,mac=${guestNetwork.mac}`],
    ],
    { logFile: path.join(directory, "engine.log") },
  );
  const identity = await identifyProcess(pid);
  return {
    address: guestNetwork.address,
    stop: async () => {
      if (identity !== null) await endProcess(identity, 0);
      await rm(directory, { recursive: true, force: true });
    },
  };
}
