import { defineConfig } from "vitest/config";

/*
 * unit: needs nothing but Node. machine: needs root, PostgreSQL, network namespaces or VMs; two files at a time, for most of them
 * wait, but no more, because emulated VMs on few cores starve each other. lab: runs in the lab's VM, from what was compiled, because its
 * emulated processors would spend longer on TypeScript than on the tests. e2e: what a user does, against a whole server, one at a time.
 */
const exclude = ["**/node_modules/**", "**/dist/**"];

/** What a test waits for may take its time where others share the machine. */
const patient = { poll: { timeout: 20_000, interval: 20 } };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["{packages/*,images,bench,lab,tests}/src/**/*.test.ts"],
          exclude: [...exclude, "**/*.machine.test.ts", "**/*.lab.test.ts", "**/*.e2e.test.ts"],
        },
      },
      {
        test: {
          name: "machine",
          include: ["**/*.machine.test.ts"],
          exclude,
          maxWorkers: 2,
          globalSetup: "packages/control-plane/src/testing/shared-postgres.ts",
          expect: patient,
          testTimeout: 120_000,
          hookTimeout: 240_000,
        },
      },
      {
        test: {
          name: "lab",
          include: [
            "packages/*/dist/**/*.lab.test.js",
            "packages/host-agent/dist/engines/{engine,freeze}-contract.machine.test.js",
            "packages/host-agent/dist/sandboxes/combinations.machine.test.js",
            "packages/host-agent/dist/disks/dm-snapshot/*.machine.test.js",
          ],
          exclude: ["**/node_modules/**"],
          globalSetup: "packages/host-agent/dist/engines/testing/try-kvm.js",
          server: { deps: { external: [/\/dist\//] } },
          fileParallelism: false,
          expect: patient,
          testTimeout: 240_000,
          hookTimeout: 480_000,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["tests/src/**/*.e2e.test.ts"],
          exclude,
          fileParallelism: false,
          expect: patient,
          testTimeout: 180_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
