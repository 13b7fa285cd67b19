import { expect, it } from "vitest";
import { configFromEnvironment } from "./config.ts";

it("needs nothing to be set", () => {
  expect(configFromEnvironment({})).toEqual({
    wrennDir: "/var/lib/wrenn",
    slotCidr: undefined,
    slotPoolSize: 4,
    engine: "auto",
    disks: "auto",
    memory: "auto",
    warmStart: true,
    goldenBytes: 10_737_418_240,
    memoryOvercommit: 1,
    programs: { qemu: undefined, firecracker: undefined, jailer: undefined },
    dns: ["1.1.1.1", "8.8.8.8"],
    logLevel: "info",
  });
});

it("takes what is set", () => {
  const config = configFromEnvironment({
    WRENN_DIR: "/srv/wrenn/",
    WRENN_DNS: "9.9.9.9, 2620:fe::fe",
    WRENN_SLOT_POOL: "0",
  });
  expect(config).toMatchObject({ wrennDir: "/srv/wrenn", dns: ["9.9.9.9", "2620:fe::fe"], slotPoolSize: 0 });
});

it("names every variable that is wrong", () => {
  const environment = {
    WRENN_ENGINE: "vmware",
    WRENN_DISKS: "vdi",
    WRENN_MEMORY: "disk",
    WRENN_DNS: "dns.example",
    WRENN_SLOT_POOL: "many",
  };
  for (const name of Object.keys(environment)) expect(() => configFromEnvironment(environment)).toThrow(name);
});
