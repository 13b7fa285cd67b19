/** The units and settings of deploy/: systemd understands them, and what keeps VMs alive over a restart is in them. */
import { access, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { runUnchecked } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const units = path.join(root, "deploy/systemd");
const installedIn = "/opt/wrenn";

/** What runs VMs. A mount namespace of its own would hide the network namespaces of VMs from the next host agent. */
const withVms = ["wrenn.service", "wrenn-host-agent.service"];
const givesMountNamespace =
  /^(?:Protect(?:System|Home|KernelTunables|KernelModules|KernelLogs|Clock|Hostname)|Private\w+|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|ExecPaths|NoExecPaths|TemporaryFileSystem|Bind\w*Paths|RootDirectory|MountFlags|DynamicUser)=/m;

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-units-"));
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function unit(name: string): Promise<string> {
  return readFile(path.join(units, name), "utf8");
}

function setting(text: string, name: string): string[] {
  return [...text.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value = ""]) => value);
}

it("systemd understands every unit, and finds the programs that they start", async () => {
  const names = await readdir(units);
  expect(names.toSorted()).toEqual(["wrenn-control-plane.service", "wrenn-host-agent.service", "wrenn.service"]);
  const files = names.map((name) => path.join(directory, name));
  for (const [index, name] of names.entries()) {
    await writeFile(files[index] ?? "", (await unit(name)).replaceAll(`${installedIn}/`, root));
  }
  const { exitCode, stdout, stderr } = await runUnchecked("systemd-analyze", ["verify", "--man=no", ...files]);
  // Its opinion of the machine's own units is none of ours.
  const said = `${stdout}${stderr}`.split("\n").filter((line) => line.includes("wrenn"));
  expect({ exitCode, said }).toEqual({ exitCode: 0, said: [] });
});

it("what units and settings name is there in this tree", async () => {
  for (const name of await readdir(units)) {
    const text = await unit(name);
    const named = [...text.matchAll(/\/opt\/wrenn\/([\w./-]+)/g)].map(([, file = ""]) => path.join(root, file));
    expect(named.length).toBeGreaterThan(1);
    for (const file of named) await expect(access(file)).resolves.toBeUndefined();
  }
});

describe.each(withVms)("%s", (name) => {
  it("ends and restarts without its VMs, and shows the next host agent what they have", async () => {
    const text = await unit(name);
    expect(setting(text, "KillMode")).toEqual(["process"]);
    expect(setting(text, "Restart")).toEqual(["always"]);
    expect(text).not.toMatch(givesMountNamespace);
  });

  it("has the capabilities that docs/operations.md lists, and no others", async () => {
    const [given = ""] = setting(await unit(name), "CapabilityBoundingSet");
    const operations = await readFile(path.join(root, "docs/operations.md"), "utf8");
    const listed = [...operations.matchAll(/^\| `(CAP_[A-Z_]+)` \|/gm)].map(([, capability]) => capability);
    expect(given.split(" ").toSorted((a, b) => a.localeCompare(b))).toEqual(
      listed.toSorted((a = "", b = "") => a.localeCompare(b)),
    );
  });
});

it("the control plane has no capabilities at all", async () => {
  expect(setting(await unit("wrenn-control-plane.service"), "CapabilityBoundingSet")).toEqual([""]);
});

it("settings of the kernel are such as it has", async () => {
  const text = await readFile(path.join(root, "deploy/sysctl.d/90-wrenn.conf"), "utf8");
  const names = [...text.matchAll(/^([\w.]+) = \d+$/gm)].map(([, name = ""]) => name);
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) {
    await expect(access(path.join("/proc/sys", ...name.split(".")))).resolves.toBeUndefined();
  }
});
